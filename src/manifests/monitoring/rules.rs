//! The alerts, each with what happened and what to do about it.
//!
//! Thresholds are for the defaults of `serve`. Values are aggregated over replicas by `namespace`, the
//! installation's: only the holder of the lease audits, and the others say zero.

use serde_json::{Value, json};

/// Somebody is woken.
const CRITICAL: &str = "critical";
/// Somebody looks during the day.
const WARNING: &str = "warning";

/// One alert.
struct Rule {
    name: &'static str,
    expression: &'static str,
    /// How long it must be so.
    lasts: &'static str,
    severity: &'static str,
    summary: &'static str,
    happened: &'static str,
    mend: &'static str,
}

/// The rules as a file of Prometheus holds them: `{groups: [...]}`.
#[must_use]
pub fn groups() -> Value {
    let group = |name: &str, rules: &[Rule]| json!({"name": name, "rules": rules.iter().map(rule).collect::<Vec<_>>()});
    json!({"groups": [
        group("driftguard.availability", &AVAILABILITY),
        group("driftguard.drift", &DRIFT),
        group("driftguard.audit", &AUDIT),
        group("driftguard.delivery", &DELIVERY),
    ]})
}

fn rule(rule: &Rule) -> Value {
    json!({
        "alert": rule.name,
        "expr": rule.expression,
        "for": rule.lasts,
        "labels": {"severity": rule.severity},
        "annotations": {"summary": rule.summary, "description": rule.happened, "action": rule.mend},
    })
}

const AVAILABILITY: [Rule; 6] = [
    Rule {
        name: "DriftGuardDown",
        expression: "absent(driftguard_ready == 1)",
        lasts: "5m",
        severity: CRITICAL,
        summary: "No replica of DriftGuard is ready",
        happened: "Nobody answers admission reviews. Writes to objects of guards with failurePolicy Fail are \
                   refused, all others pass unchecked, and drift is not found.",
        mend: "See why the pods are not ready: kubectl get pods -A -l app=driftguard-operator, then kubectl logs \
               and the /readyz?verbose page of one of them. If guarded objects must be changed before that is \
               mended: driftguard breakglass --for 1h --reason REASON. If there are pods and Prometheus does \
               not scrape them, label its namespace driftguard.terrafusion.ai/metrics=true.",
    },
    Rule {
        name: "DriftGuardReplicasNotReady",
        expression: "sum by (namespace) (driftguard_ready) < 2",
        lasts: "10m",
        severity: WARNING,
        summary: "Fewer than two replicas of DriftGuard are ready",
        happened: "{{ $value }} replicas in namespace {{ $labels.namespace }} are ready. If the last one goes, \
                   writes to guarded objects are refused.",
        mend: "See why: kubectl get pods -n {{ $labels.namespace }} -l app=driftguard-operator -o wide, then \
               kubectl describe pod and kubectl logs of the one that is not ready.",
    },
    Rule {
        name: "DriftGuardNoLeader",
        expression: "sum by (namespace) (driftguard_leader) < 1",
        lasts: "5m",
        severity: CRITICAL,
        summary: "No replica of DriftGuard holds the lease",
        happened: "Reviews are answered, but nobody registers new guards, audits, restores or writes status.",
        mend: "See who holds the lease and until when: kubectl get lease driftguard -n {{ $labels.namespace }} -o \
               yaml. The logs of the replicas say why none can take it; most often the right to update Leases \
               is missing or the API server cannot be reached.",
    },
    Rule {
        name: "DriftGuardCertificateExpiring",
        expression: "min by (namespace, pod) (driftguard_certificate_end_timestamp_seconds) - time() < 4 * 3600",
        lasts: "5m",
        severity: CRITICAL,
        summary: "The certificate of DriftGuard ends soon",
        happened: "The certificate that {{ $labels.pod }} serves ends in {{ $value | humanizeDuration }}. After \
                   that API servers cannot call it, and writes to guarded objects are refused. It should have \
                   been replaced long before.",
        mend: "The log of {{ $labels.pod }} says why it was not replaced: the Secret driftguard-ca cannot be \
               written, or the files of --tls-cert-file are not renewed by whoever makes them.",
    },
    Rule {
        name: "DriftGuardRegistrationContended",
        expression: "max by (namespace) (driftguard_registration_contended) == 1",
        lasts: "5m",
        severity: CRITICAL,
        summary: "Somebody keeps altering the webhook configurations of DriftGuard",
        happened: "The registered rules are put right and altered again. While they are altered, writes to \
                   guarded objects may pass unchecked.",
        mend: "The condition Enforcing of any guard names who does it: kubectl get dg -A -o yaml. Exempt the \
               configurations named driftguard from that tool, or stop it.",
    },
    Rule {
        name: "DriftGuardGlassBroken",
        expression: "max by (namespace) (driftguard_broken_glass) == 1",
        lasts: "1m",
        severity: WARNING,
        summary: "Somebody broke the glass: every write to guarded objects passes",
        happened: "driftguard breakglass was used. Admission refuses nothing until it ends; what changes \
                   meanwhile is audited afterwards.",
        mend: "Who, why and until when stands in the annotations of kubectl get \
               validatingwebhookconfiguration driftguard -o yaml. Run driftguard breakglass --end as soon as the \
               reason is gone.",
    },
];

const DRIFT: [Rule; 5] = [
    Rule {
        name: "DriftGuardAdmissionBypassed",
        expression: "sum by (namespace) (increase(driftguard_alerts_total{reason=\"BypassedAdmission\",state=\"firing\"}[15m])) > 0",
        lasts: "0s",
        severity: CRITICAL,
        summary: "A guarded object was changed past admission",
        happened: "Unapproved content appeared while admission was enforced. Something wrote past the API \
                   server's webhooks: into etcd, from a backup, or while the configuration was altered.",
        mend: "Find which: kubectl get events -A --field-selector reason=AlertBypassedAdmission. The guard's \
               status.lastDrift names paths and, if known, who. Treat it as a security incident until it is \
               explained: who can write to etcd, was a backup restored, who altered the webhook configurations.",
    },
    Rule {
        name: "DriftGuardDriftUnresolved",
        expression: "max by (namespace) (driftguard_drifted_guards) > 0",
        lasts: "15m",
        severity: WARNING,
        summary: "Guarded objects are not as approved",
        happened: "{{ $value }} guards have been drifted for 15 minutes: they are not put back, or putting them \
                   back fails.",
        mend: "List them: kubectl get dg -A, column Drifted. The condition Drifted of each says what is so and \
               what becomes of it. Either put the approved content back, or approve the new one by changing \
               spec.expectedHash where the guard is kept. With autoRemediate, kubectl describe dg says why it \
               was not restored.",
    },
    Rule {
        name: "DriftGuardFighting",
        expression: "max by (namespace) (driftguard_fighting_guards) > 0",
        lasts: "5m",
        severity: WARNING,
        summary: "Somebody keeps undoing what DriftGuard puts back",
        happened: "{{ $value }} guards are in a fight: each time the approved content is restored, another writer \
                   changes it again. DriftGuard waits longer each time.",
        mend: "The condition Fighting names the rival: kubectl get dg -A -o yaml. Stop that writer, have it write \
               the approved content, or leave the fields that it owns out of the guard by ignorePaths.",
    },
    Rule {
        name: "DriftGuardRemediationStopped",
        expression: "max by (namespace) (driftguard_stopped_guards) > 0",
        lasts: "0s",
        severity: CRITICAL,
        summary: "Too many guards drifted at once: nothing is restored",
        happened: "{{ $value }} guards wait. When many drift together, the approvals or their source are the \
                   likelier culprit, so that nothing is put back until somebody has looked. Admission goes on.",
        mend: "See what they have in common: kubectl get dg -A. If the live objects are right, approve them; if \
               the approvals are right, the condition Drifted of each guard says how to let remediation go on.",
    },
    Rule {
        name: "DriftGuardSourceUnavailable",
        expression: "max by (namespace) (driftguard_guards_without_source) > 0",
        lasts: "15m",
        severity: WARNING,
        summary: "Guards have no source of the approved content",
        happened: "For {{ $value }} guards no source of truth has content of the approved hash: after drift \
                   nothing could be restored.",
        mend: "The condition SourceAvailable says what each source answered: kubectl get dg -A -o yaml. A mismatch \
               means that source and approval were not changed together; unavailable, that the source or the \
               way to it is down; forbidden, that the guard's author may not read it.",
    },
];

const AUDIT: [Rule; 4] = [
    Rule {
        name: "DriftGuardWatchStale",
        expression: "max by (namespace) (driftguard_watch_age_seconds) > 300",
        lasts: "5m",
        severity: WARNING,
        summary: "A watch of guarded objects hears nothing",
        happened: "The quietest watch has heard nothing for {{ $value | humanizeDuration }}, not even the \
                   bookmarks that API servers send each minute. Drift is found only by the next sweep.",
        mend: "The log of the replica that holds the lease says which watch and why. Check that it can reach \
               the API server and that proxies in between do not hold back long answers.",
    },
    Rule {
        name: "DriftGuardSweepStale",
        expression: "max by (namespace) (driftguard_sweep_age_seconds) > 3600",
        lasts: "5m",
        severity: WARNING,
        summary: "Guarded objects have not been swept for long",
        happened: "The last full comparison is {{ $value | humanizeDuration }} old; --audit-interval is 10 minutes \
                   unless set. Drift that a watch misses is not found. With a longer interval, raise this \
                   threshold.",
        mend: "The log of the replica that holds the lease says what stops the sweep: most often a right to list \
               is missing, or the API server throttles.",
    },
    Rule {
        name: "DriftGuardWatchMissed",
        expression: "sum by (namespace) (increase(driftguard_watch_missed_total[1h])) > 0",
        lasts: "0s",
        severity: WARNING,
        summary: "A sweep found changes that a watch should have told",
        happened: "{{ $value | humanize }} changes of guarded objects were found by a sweep only. Such drift is \
                   found minutes late.",
        mend: "Look for API servers or proxies that drop watch events, and for several API servers on etcd \
               members that disagree. The log of the replica that holds the lease names the kind.",
    },
    Rule {
        name: "DriftGuardTargetsUnreadable",
        expression: "max by (namespace) (driftguard_unreadable_guards) > 0",
        lasts: "15m",
        severity: WARNING,
        summary: "Targets of guards cannot be read",
        happened: "The targets of {{ $value }} guards cannot be read: whether they drift is not known.",
        mend: "The condition Drifted says why: kubectl get dg -A -o yaml. For a missing right: driftguard manifests \
               rbac --for KIND | kubectl apply -f -.",
    },
];

const DELIVERY: [Rule; 3] = [
    Rule {
        name: "DriftGuardAlertsNotDelivered",
        expression: "max by (namespace, pod, destination) (driftguard_delivery_failing) == 1",
        lasts: "10m",
        severity: CRITICAL,
        summary: "Alerts or telemetry of DriftGuard do not arrive",
        happened: "{{ $labels.pod }} has not been able to deliver to {{ $labels.destination }} for 10 minutes. What \
                   it has to tell waits in its spool and is lost only when that is full or the pod is deleted.",
        mend: "The log of {{ $labels.pod }} says what the receiver answers. 401 or 403: the token or key file is \
               out of date. 404: the address is wrong. No answer: check the receiver, and that the NetworkPolicy \
               of DriftGuard lets its port out.",
    },
    Rule {
        name: "DriftGuardSpoolFilling",
        expression: "max by (namespace, pod, destination) (driftguard_spool_fill_ratio) > 0.8",
        lasts: "5m",
        severity: WARNING,
        summary: "The spool of DriftGuard fills up",
        happened: "The spool of {{ $labels.pod }} for {{ $labels.destination }} is full to {{ $value | \
                   humanizePercentage }}. When it is full, the oldest messages are dropped.",
        mend: "Mend the receiver, see DriftGuardAlertsNotDelivered. To gain time, raise --spool-max-events and \
               --spool-max-bytes together with the size of the volume spool.",
    },
    Rule {
        name: "DriftGuardAlertsDropped",
        expression: "sum by (namespace, pod, destination, reason) (increase(driftguard_delivery_dropped_total[15m])) > 0",
        lasts: "0s",
        severity: WARNING,
        summary: "DriftGuard dropped messages",
        happened: "{{ $labels.pod }} dropped {{ $value | humanize }} messages for {{ $labels.destination }}: \
                   {{ $labels.reason }}. full: the oldest gave way. busy: too many at once for the disk. torn: files \
                   were damaged. refused: the receiver will never take them.",
        mend: "kubectl get dg -A and the Events of the guards hold what was not delivered. For refused, the log \
               of {{ $labels.pod }} says what the receiver answered; its schema or size limit is too strict.",
    },
];
