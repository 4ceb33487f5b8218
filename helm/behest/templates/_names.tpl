{{/* The release's name, at most 40 characters so that a service's name fits behind it. */}}
{{- define "behest.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* The enabled services as JSON, name to settings, each laid over the defaults and checked. */}}
{{- define "behest.services" -}}
{{- $services := dict -}}
{{- range $name, $own := .Values.services -}}
{{- $service := mergeOverwrite (deepCopy $.Values.defaults) (deepCopy $own) -}}
{{- if $service.enabled -}}
{{- if include "behest.shares" (dict "root" $ "name" $name "service" $service) -}}
{{- $_ := set $service.persistence "enabled" false -}}
{{- end -}}
{{- include "behest.check" (dict "root" $ "name" $name "service" $service) -}}
{{- $_ := set $services $name $service -}}
{{- end -}}
{{- end -}}
{{- $services | toJson -}}
{{- end -}}

{{/* Refuses what would split or block a service that keeps its database for itself: only a shared database takes several replicas. */}}
{{- define "behest.check" -}}
{{- $database := include "behest.database" . -}}
{{- $alone := and (eq (int .service.replicas) 1) (not .service.autoscaling.enabled) -}}
{{- if and (eq .name "provider-gateway") .service.config.budgets (not $database) (not $alone) -}}
{{- fail "services.provider-gateway has config.budgets and several replicas, which share them in PostgreSQL alone; set postgres.existingSecret, or services.provider-gateway.replicas=1" -}}
{{- end -}}
{{- if or (hasPrefix "sqlite:" $database) (hasPrefix "memory:" $database) -}}
{{- if .service.autoscaling.enabled -}}
{{- fail (printf "services.%s keeps its database to itself (%s) and cannot be autoscaled; set services.%s.autoscaling.enabled=false" .name $database .name) -}}
{{- end -}}
{{- if gt (int .service.replicas) 1 -}}
{{- fail (printf "services.%s keeps its database to itself (%s) and runs as one replica; set services.%s.replicas=1" .name $database .name) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* The database of a service: the configured one, else PostgreSQL's, else one on its volume, else one in memory; empty when it has none.
     A gateway without one shares nothing between its replicas, which only budgets mind: see behest.check.
     Takes root, name and service. */}}
{{- define "behest.database" -}}
{{- if has .name (list "session-store" "tool-executor" "provider-gateway") -}}
{{- $own := .service.persistence.enabled | ternary (printf "sqlite:/var/lib/behest/%s.db" .name) "memory:" -}}
{{- if .root.Values.postgres.existingSecret -}}
{{- $own = printf "file:/run/secrets/postgres/%s" .root.Values.postgres.key -}}
{{- end -}}
{{- if and (eq .name "provider-gateway") (not .root.Values.postgres.existingSecret) -}}
{{- $own = "" -}}
{{- end -}}
{{- .service.config.database | default $own -}}
{{- end -}}
{{- end -}}

{{/* Not empty when a service's database is one that replicas share. Takes root, name and service. */}}
{{- define "behest.shares" -}}
{{- $database := include "behest.database" . -}}
{{- if not (or (eq $database "") (hasPrefix "sqlite:" $database) (hasPrefix "memory:" $database)) -}}
yes
{{- end -}}
{{- end -}}

{{/* The secrets that a service is given as files in /run/secrets, as JSON: what for, and the secret's name. Takes root, name and service. */}}
{{- define "behest.secrets" -}}
{{- $secrets := dict -}}
{{- if hasPrefix "file:/run/secrets/postgres/" (include "behest.database" .) -}}
{{- $_ := set $secrets "postgres" .root.Values.postgres.existingSecret -}}
{{- end -}}
{{- with .root.Values.kafka.existingSecret -}}
{{- $_ := set $secrets "kafka" . -}}
{{- end -}}
{{- $secrets | toJson -}}
{{- end -}}

{{/* Labels that select a service's pods; they never change. Takes root and name. */}}
{{- define "behest.selector" -}}
app.kubernetes.io/name: {{ .root.Chart.Name }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .name }}
{{- end -}}

{{/* Name, labels and annotations of an object of a service. Takes root and name, and annotations. */}}
{{- define "behest.metadata" -}}
name: {{ include "behest.fullname" .root }}-{{ .name }}
namespace: {{ .root.Release.Namespace }}
labels:
  {{- include "behest.selector" . | nindent 2 }}
  app.kubernetes.io/part-of: behest
  app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
  app.kubernetes.io/managed-by: {{ .root.Release.Service }}
  helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
  {{- with .root.Values.commonLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with merge (dict) (.annotations | default dict) .root.Values.commonAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* The image of a service. Takes root, name and service. */}}
{{- define "behest.image" -}}
{{- $image := .root.Values.image -}}
{{- $repository := .service.image.repository | default (printf "%s%s" $image.prefix .name) -}}
{{- if and $image.registry (not .service.image.repository) -}}
{{- $repository = printf "%s/%s" (trimSuffix "/" $image.registry) $repository -}}
{{- end -}}
{{- if .service.image.digest -}}
{{- printf "%s@%s" $repository .service.image.digest -}}
{{- else -}}
{{- printf "%s:%s" $repository (.service.image.tag | default $image.tag | default .root.Chart.AppVersion) -}}
{{- end -}}
{{- end -}}

{{/* The service account of a service. Takes root, name and service. */}}
{{- define "behest.account" -}}
{{- if .service.serviceAccount.create -}}
{{- include "behest.fullname" .root }}-{{ .name }}
{{- else -}}
{{- .service.serviceAccount.name | default "default" -}}
{{- end -}}
{{- end -}}

{{/* The secret with the providers' keys, empty when there is none. */}}
{{- define "behest.keys" -}}
{{- if .Values.providerKeys.existingSecret -}}
{{- .Values.providerKeys.existingSecret -}}
{{- else if .Values.providerKeys.create -}}
{{- include "behest.fullname" . }}-provider-keys
{{- end -}}
{{- end -}}
