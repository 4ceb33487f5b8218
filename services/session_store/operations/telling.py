"""What other processes hear of a write: its result as hints. Who hears them is the broadcaster's and the fleet's affair."""

from __future__ import annotations

from session_store.domain.batch import Announcement
from session_store.domain.run import Append, Place
from session_store.domain.session import DriverId, SessionId, Tenant
from session_store.operations.appending import Appended
from session_store.operations.commanding import Recorded
from session_store.operations.opening import Opened
from session_store.operations.ports import Hint, News

DUE = Hint(News.DUE)


def of_opened(opened: Opened, has_room: bool) -> tuple[Hint, ...]:
    """The run's driver, on whatever process its stream is, counts the run and is told again if it does not begin."""
    if opened.announcement is None:
        return ()
    driver_id = opened.run.driver_id if opened.epoch else DriverId("")
    hint = _of(News.OPENED, opened.announcement, driver_id, opened.epoch)
    due = not opened.epoch and opened.run.place is Place.HOLDING and not has_room
    interrupted = of_recorded(opened.interrupted, has_room) if opened.interrupted else ()
    return (hint, DUE, *interrupted) if due else (hint, *interrupted)


def of_appended(wish: Append, appended: Appended, has_room: bool) -> tuple[Hint, ...]:
    """The process that the driver's stream is at knows that the driver writes."""
    if appended.announcement is None:
        return ()
    news = News.ENDED if appended.announcement.ends else News.RESTED if appended.left else News.APPENDED
    hint = _of(news, appended.announcement, wish.driver_id)
    return (hint, DUE) if appended.promoted and not has_room else (hint,)


def of_recorded(recorded: Recorded, has_room: bool) -> tuple[Hint, ...]:
    """The driver is woken where its stream is."""
    if recorded.announcement is None:
        return ()
    hint = _of(News.COMMANDED, recorded.announcement, recorded.driver_id)
    return (hint, DUE) if recorded.due and not has_room else (hint,)


def of_deleted(tenant: Tenant, session_id: SessionId) -> tuple[Hint, ...]:
    """Those who follow the session look, and find it gone."""
    return (Hint(News.DELETED, tenant, session_id),)


def _of(news: News, announcement: Announcement, driver_id: DriverId, epoch: int = 0) -> Hint:
    batch = announcement.batch
    return Hint(news, announcement.tenant, batch.session_id, batch.run_id, batch.number, driver_id, epoch)
