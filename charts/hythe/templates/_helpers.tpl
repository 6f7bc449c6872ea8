{{- define "hythe.labels" -}}
app.kubernetes.io/name: hythe
app.kubernetes.io/part-of: hythe
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{/* What selects the pods of a part. It never changes, and holds no version: a changed pod template restarts pods. */}}
{{- define "hythe.selector" -}}
app.kubernetes.io/part-of: hythe
app.kubernetes.io/component: {{ . }}
{{- end }}

{{- define "hythe.image" -}}
{{- include "hythe.reference" (dict "image" .Values.image "tag" .Chart.AppVersion) -}}
{{- end }}

{{- define "hythe.envoyImage" -}}
{{- include "hythe.reference" (dict "image" .Values.envoyImage) -}}
{{- end }}

{{/* An image by its digest if that is given, else by its tag. */}}
{{- define "hythe.reference" -}}
{{- if .image.digest -}}
{{- printf "%s@%s" .image.repository .image.digest -}}
{{- else -}}
{{- printf "%s:%s" .image.repository (.image.tag | default .tag) -}}
{{- end -}}
{{- end }}

{{/* Whether the node agent has something to do. */}}
{{- define "hythe.node" -}}
{{- if or .Values.loadBalancer.enabled .Values.overlay.enabled .Values.serviceProxy.enabled -}}true{{- end -}}
{{- end }}

{{- define "hythe.heartbeatSecret" -}}
{{- .Values.loadBalancer.heartbeatKeySecret | default "hythe-heartbeat" -}}
{{- end }}

{{- define "hythe.cniDirs" -}}
{{- $presets := dict
  "kubeadm" (dict "bin" "/opt/cni/bin" "conf" "/etc/cni/net.d")
  "k3s" (dict "bin" "/var/lib/rancher/k3s/data/cni" "conf" "/var/lib/rancher/k3s/agent/etc/cni/net.d")
  "microk8s" (dict "bin" "/var/snap/microk8s/current/opt/cni/bin" "conf" "/var/snap/microk8s/current/args/cni-network")
  "talos" (dict "bin" "/opt/cni/bin" "conf" "/etc/cni/net.d") -}}
{{- $p := get $presets .Values.cni.preset -}}
bin: {{ .Values.cni.binDir | default $p.bin }}
conf: {{ .Values.cni.confDir | default $p.conf }}
{{- end }}

{{/* The API servers as arguments. */}}
{{- define "hythe.apiArgs" -}}
{{- range .Values.apiServers }}
- --apiserver=https://{{ . }}
{{- end }}
{{- end }}

{{- define "hythe.podCommon" -}}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
{{- range . }}
- name: {{ . }}
{{- end }}
{{- end }}
enableServiceLinks: false
{{- end }}

{{/* A container that needs no privilege at all. */}}
{{- define "hythe.unprivileged" -}}
allowPrivilegeEscalation: false
capabilities: {drop: [ALL]}
readOnlyRootFilesystem: true
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{/* Gives the folder that gateway and Envoy share to their user, and with "cache" the one that is the gateway's alone. */}}
{{- define "hythe.ownFolder" -}}
- name: folder
  image: {{ .image }}
  imagePullPolicy: {{ .pullPolicy }}
  command: [/hythe, chart, own, /run/hythe/gateway, {{ if .cache }}--private=/run/hythe/gateway-cache, {{ end }}--uid=65532]
  securityContext:
    allowPrivilegeEscalation: false
    capabilities: {drop: [ALL], add: [CHOWN]}
    readOnlyRootFilesystem: true
    runAsUser: 0
    runAsGroup: 0
    seccompProfile: {type: RuntimeDefault}
  resources:
    requests: {cpu: 10m, memory: 16Mi}
  volumeMounts:
  - {name: gateway, mountPath: /run/hythe/gateway}
  {{- if .cache }}
  - {name: cache, mountPath: /run/hythe/gateway-cache}
  {{- end }}
{{- end }}

{{- define "hythe.hook" -}}
helm.sh/hook: {{ .hook }}
helm.sh/hook-weight: {{ .weight | quote }}
helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
{{- end }}

{{/* A Job that talks to the API server only, and works on a cluster whose pod network does not. */}}
{{- define "hythe.hookJob" }}
{{- $root := .root }}
apiVersion: batch/v1
kind: Job
metadata:
  name: {{ .name }}
  namespace: {{ $root.Release.Namespace }}
  labels:
    {{- include "hythe.labels" $root | nindent 4 }}
  annotations:
    {{- include "hythe.hook" . | nindent 4 }}
    # What a step says is lost with its pod otherwise.
    helm.sh/hook-output-log-policy: {{ .output | default "hook-failed" }}
spec:
  backoffLimit: {{ .retries | default 2 }}
  template:
    metadata:
      labels:
        {{- include "hythe.selector" "hook" | nindent 8 }}
    spec:
      serviceAccountName: {{ .account | default .name }}
      hostNetwork: true
      dnsPolicy: Default
      priorityClassName: system-cluster-critical
      restartPolicy: Never
      {{- include "hythe.podCommon" $root | nindent 6 }}
      nodeSelector: {kubernetes.io/os: linux}
      # A cluster without network is no obstacle, and a dead node is no place: it has the taint unreachable.
      tolerations:
      {{- range list "node-role.kubernetes.io/control-plane" "node.kubernetes.io/not-ready" "node.kubernetes.io/network-unavailable"
        "node.kubernetes.io/unschedulable" }}
      - {key: {{ . }}, operator: Exists}
      {{- end }}
      {{- with $root.Values.controller.tolerations }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
      containers:
      - name: step
        image: {{ include "hythe.image" $root }}
        imagePullPolicy: {{ $root.Values.image.pullPolicy }}
        command:
        {{- range .command }}
        - {{ . | quote }}
        {{- end }}
        args:
        - --namespace={{ $root.Release.Namespace }}
        {{- include "hythe.apiArgs" $root | nindent 8 }}
        # The result is what helm shows of a hook that fails.
        terminationMessagePolicy: FallbackToLogsOnError
        securityContext:
          {{- include "hythe.unprivileged" $root | nindent 10 }}
        resources:
          requests: {cpu: 10m, memory: 32Mi}
{{- end }}

{{- define "hythe.hookMeta" -}}
labels:
  {{- include "hythe.labels" .root | nindent 2 }}
annotations:
  {{- include "hythe.hook" .hook | nindent 2 }}
{{- end }}
