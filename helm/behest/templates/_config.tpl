{{/* behest.yaml of one service: what the chart knows, under what the values say. Takes root, name and service. */}}
{{- define "behest.config" -}}
{{- $section := dict "listen" (printf "0.0.0.0:%d" (int .service.port)) -}}
{{- with include "behest.database" . -}}
{{- $_ := set $section "database" . -}}
{{- end -}}
{{- if eq .name "orchestrator" -}}
{{- $_ := set $section "neighbours" (include "behest.neighbours" . | fromJson) -}}
{{- end -}}
{{- $file := deepCopy .root.Values.config -}}
{{- $_ := set $file (replace "-" "_" .name) (mergeOverwrite $section (deepCopy .service.config)) -}}
{{- range $key, $value := $file -}}
{{- if not $value -}}
{{- $_ := unset $file $key -}}
{{- end -}}
{{- end -}}
{{- toYaml $file -}}
{{- end -}}

{{/* Where the orchestrator finds its neighbours: every replica of each, by DNS, or by streams enough to one address. Takes root. */}}
{{- define "behest.neighbours" -}}
{{- $root := .root -}}
{{- $neighbours := dict -}}
{{- range $name, $service := include "behest.services" $root | fromJson -}}
{{- if ne $name "orchestrator" -}}
{{- $host := printf "%s-%s.%s.svc" (include "behest.fullname" $root) $name $root.Release.Namespace -}}
{{- $target := printf "dns:///%s:%d" $host (int $service.port) -}}
{{- $neighbour := dict "target" $target "carrier" "mux" -}}
{{- if not $service.service.headless -}}
{{- $most := ternary $service.autoscaling.maxReplicas $service.replicas $service.autoscaling.enabled -}}
{{- $_ := set $neighbour "streams" (min 64 (mul 2 $most)) -}}
{{- end -}}
{{- $_ := set $neighbours (replace "-" "_" $name) $neighbour -}}
{{- end -}}
{{- end -}}
{{- $neighbours | toJson -}}
{{- end -}}
