{{- define "elle.name" -}}{{ printf "%s-elle-router" .Release.Name | trunc 63 | trimSuffix "-" }}{{- end }}
{{- define "elle.selector" -}}
app.kubernetes.io/name: elle-router
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}
{{- define "elle.meta" -}}
name: {{ include "elle.name" . }}
namespace: {{ .Release.Namespace }}
labels:
  {{- include "elle.selector" . | nindent 2 }}
  app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
  app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}
