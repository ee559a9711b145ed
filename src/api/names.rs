//! Names that stand in clusters, written once: group, namespace, labels, annotations, objects.
//!
//! Names of the older operator are kept beside the recommended `app.kubernetes.io/*` labels, so
//! that commands and dashboards made for it go on working.

/// API group of our kinds.
pub const GROUP: &str = "terrafusion.ai";
/// Served and stored version of our kinds.
pub const VERSION: &str = "v1";
/// Plural resource name of `DriftGuard`.
pub const DRIFTGUARDS: &str = "driftguards";
/// Name of the CRD of `DriftGuard`.
pub const DRIFTGUARD_CRD: &str = "driftguards.terrafusion.ai";
/// Plural resource name of `DriftGuardException`.
pub const EXCEPTIONS: &str = "driftguardexceptions";
/// Name of the CRD of `DriftGuardException`.
pub const EXCEPTION_CRD: &str = "driftguardexceptions.terrafusion.ai";
/// Name of the CRD of `GAMAConfig`.
pub const GAMACONFIG_CRD: &str = "gamaconfigs.terrafusion.ai";

/// Namespace that everything is installed into unless told otherwise.
pub const NAMESPACE: &str = "terrafusion-system";
/// Field manager of everything that `install` and `serve` write.
pub const FIELD_MANAGER: &str = "driftguard";
/// Field manager of what the auditor writes into statuses: apart, so that what it no longer says goes.
pub const AUDIT_FIELD_MANAGER: &str = "driftguard-audit";
/// Field manager of the reports of `openreports.io` that `serve` keeps.
pub const REPORTS_FIELD_MANAGER: &str = "driftguard-reports";
/// Name of each of them.
pub const OPENREPORT: &str = "driftguard";
/// Field manager of the static base of the webhook configurations. Not [`FIELD_MANAGER`]: an apply
/// takes away what its manager applied before and leaves out now, so that a second `install` would
/// take away the entries that `serve` wrote, and let every write pass.
pub const BASE_FIELD_MANAGER: &str = "driftguard-install";
/// What a field manager of our own dry runs starts with; a nonce follows.
pub const HASH_FIELD_MANAGER_PREFIX: &str = "driftguard-hash-";

/// Deployment, ServiceAccount, ClusterRole and both bindings: the older operator's name.
pub const OPERATOR: &str = "driftguard-operator";
/// Service before the admission server.
pub const WEBHOOK_SERVICE: &str = "driftguard-webhook";
/// Port of that Service, the one API servers take when a webhook names none.
pub const WEBHOOK_SERVICE_PORT: u16 = 443;
/// Port that `serve` answers admission reviews on.
pub const WEBHOOK_PORT: u16 = 8443;
/// Port that `serve` answers `/livez`, `/readyz` and `/metrics` on.
pub const HEALTH_PORT: u16 = 8080;
/// Name of both the validating and the mutating webhook configuration.
pub const WEBHOOK_CONFIGURATION: &str = "driftguard";
/// Lease that elects the one replica that writes registration and status.
pub const LEASE: &str = "driftguard";
/// Secret that holds the certificate authority shared by all replicas.
pub const CA_SECRET: &str = "driftguard-ca";
/// Secret that holds the key by which authors of guards are signed. Not [`CA_SECRET`]: an authority is
/// replaced now and then, and the authors of all guards must outlive that.
pub const SIGNING_SECRET: &str = "driftguard-signing";

/// Label key of the older operator; see [`OPERATOR`] for its value on our pods.
pub const LABEL_APP: &str = "app";
/// Label of the Leases by which each replica says that it lives and how new its view is.
pub const LABEL_REPLICA: &str = "driftguard.terrafusion.ai/replica";
/// Recommended label: the name of the application.
pub const LABEL_NAME: &str = "app.kubernetes.io/name";
/// Recommended label: the part within the application.
pub const LABEL_COMPONENT: &str = "app.kubernetes.io/component";
/// Recommended label: the larger application this is part of.
pub const LABEL_PART_OF: &str = "app.kubernetes.io/part-of";
/// Recommended label: the tool that manages the object.
pub const LABEL_MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// Set by the API server on every namespace: its own name.
pub const LABEL_NAMESPACE_NAME: &str = "kubernetes.io/metadata.name";

/// Annotation of the CRD of `DriftGuard`: the default enforcement that `install` chose, kept so
/// that the next one does not turn it around.
pub const ANNOTATION_DEFAULT_ENFORCEMENT: &str = "driftguard.terrafusion.ai/default-enforcement";
/// Guard annotation: whom to ask when a write was refused. Shown in the refusal.
pub const ANNOTATION_CONTACT: &str = "driftguard.terrafusion.ai/contact";
/// Guard annotation: where the way forward is written down. Shown in the refusal.
pub const ANNOTATION_RUNBOOK: &str = "driftguard.terrafusion.ai/runbook";
/// Guard annotation: why its content was approved last, in the words of whoever did by `driftguard approve`.
pub const ANNOTATION_APPROVED_BECAUSE: &str = "driftguard.terrafusion.ai/approved-because";
/// Guard annotation: who approved its spec, signed. Written by the mutating webhook alone.
pub const ANNOTATION_AUTHOR: &str = "driftguard.terrafusion.ai/author";
/// Guard annotation: asks the mutating webhook to sign the guard anew as whoever writes it, which takes
/// the request away again.
pub const ANNOTATION_ADOPT: &str = "driftguard.terrafusion.ai/adopt";
/// Annotation of our webhook configurations: the generation that was last applied. It also stands in
/// the paths of the entries, but there may be none.
pub const ANNOTATION_GENERATION: &str = "driftguard.terrafusion.ai/generation";
/// Annotation of the Lease of a replica: what it says of itself, JSON.
pub const ANNOTATION_REPLICA: &str = "driftguard.terrafusion.ai/replica";
/// Annotation of our webhook configurations: until when every guard lets writes pass.
pub const ANNOTATION_BREAKGLASS_UNTIL: &str = "driftguard.terrafusion.ai/breakglass-until";
/// Why, in the words of whoever broke the glass.
pub const ANNOTATION_BREAKGLASS_REASON: &str = "driftguard.terrafusion.ai/breakglass-reason";
/// By whom, as far as the command could tell.
pub const ANNOTATION_BREAKGLASS_BY: &str = "driftguard.terrafusion.ai/breakglass-by";
/// Annotation by which cert-manager's cainjector is asked to keep `caBundle`: the Certificate whose
/// authority it is, as `NAMESPACE/NAME`.
pub const ANNOTATION_INJECT_CA_FROM: &str = "cert-manager.io/inject-ca-from";
/// When `serve` first saw it. Written by `serve` alone.
pub const ANNOTATION_BREAKGLASS_SEEN: &str = "driftguard.terrafusion.ai/breakglass-seen";
/// By whom it was ended before its time, as far as the command could tell.
pub const ANNOTATION_BREAKGLASS_ENDED_BY: &str = "driftguard.terrafusion.ai/breakglass-ended-by";
/// Everything that stands in our webhook configurations about broken glass.
pub const BREAKGLASS_ANNOTATIONS: [&str; 5] = [
    ANNOTATION_BREAKGLASS_UNTIL,
    ANNOTATION_BREAKGLASS_REASON,
    ANNOTATION_BREAKGLASS_BY,
    ANNOTATION_BREAKGLASS_SEEN,
    ANNOTATION_BREAKGLASS_ENDED_BY,
];
