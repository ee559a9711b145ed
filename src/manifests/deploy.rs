//! Namespace, Service, Deployment and PodDisruptionBudget.
//!
//! The pods hold no privilege that the process does not use: no root, no capability, nothing
//! writable but the spool and a folder in memory. Two replicas on different nodes, because a write to a guarded object waits for one.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, DeploymentStrategy, RollingUpdateDeployment};
use k8s_openapi::api::core::v1::{
    Capabilities, Container, ContainerPort, EmptyDirVolumeSource, HTTPGetAction, Namespace,
    PodSecurityContext, PodSpec, PodTemplateSpec, Probe, ResourceRequirements, SeccompProfile,
    SecurityContext, Service, ServicePort, ServiceSpec, TopologySpreadConstraint, Volume, VolumeMount,
};
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::api::{Enforcement, names};

use super::{Settings, labels};

/// Replicas: one may be gone, by a node drain or a roll-out, and the other answers.
const REPLICAS: i32 = 2;
/// Any user but root; fixed, so that it can be allowed by number.
const USER: i64 = 65_532;
/// Seconds from SIGTERM to SIGKILL. `serve` finishes what it began within 25 s.
const GRACE_SECONDS: i64 = 40;

/// Volume in which alerts wait to be delivered, and where it is.
const SPOOL: &str = "spool";
const SPOOL_PATH: &str = "/var/lib/driftguard/spool";
/// Twice what alerts and telemetry may take together: a pod that fills its volume is evicted.
const SPOOL_SIZE: &str = "256Mi";

/// Volume for what is fetched from git and for keys of ssh, in memory: neither may outlive the pod on a disk.
const SCRATCH: &str = "scratch";
const SCRATCH_PATH: &str = "/var/lib/driftguard/scratch";
/// Three fetches at a time, each with what it may receive and the keys.
const SCRATCH_SIZE: &str = "240Mi";

/// The namespace of the installation.
#[must_use]
pub fn namespace(settings: &Settings) -> Namespace {
    Namespace {
        metadata: ObjectMeta {
            name: Some(settings.namespace.clone()),
            labels: Some(labels::common("namespace")),
            ..ObjectMeta::default()
        },
        ..Namespace::default()
    }
}

/// What API servers call.
#[must_use]
pub fn service(settings: &Settings) -> Service {
    Service {
        metadata: meta(settings, names::WEBHOOK_SERVICE),
        spec: Some(ServiceSpec {
            selector: Some(labels::operator_selector()),
            ports: Some(vec![ServicePort {
                name: Some("https".to_owned()),
                port: names::WEBHOOK_SERVICE_PORT.into(),
                target_port: Some(IntOrString::String("webhook".to_owned())),
                protocol: Some("TCP".to_owned()),
                ..ServicePort::default()
            }]),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    }
}

/// The same Service for a process outside the cluster: API servers that run on this machine
/// resolve `localhost` and call its `port`.
#[must_use]
pub fn external_service(settings: &Settings, port: u16) -> Service {
    Service {
        metadata: meta(settings, names::WEBHOOK_SERVICE),
        spec: Some(ServiceSpec {
            type_: Some("ExternalName".to_owned()),
            external_name: Some("localhost".to_owned()),
            ports: Some(vec![ServicePort {
                name: Some("https".to_owned()),
                port: port.into(),
                protocol: Some("TCP".to_owned()),
                ..ServicePort::default()
            }]),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    }
}

/// At most one replica is drained at a time.
#[must_use]
pub fn disruption_budget(settings: &Settings) -> PodDisruptionBudget {
    PodDisruptionBudget {
        metadata: meta(settings, names::OPERATOR),
        spec: Some(PodDisruptionBudgetSpec {
            max_unavailable: Some(IntOrString::Int(1)),
            selector: Some(selector()),
            ..PodDisruptionBudgetSpec::default()
        }),
        ..PodDisruptionBudget::default()
    }
}

/// The operator.
#[must_use]
pub fn deployment(settings: &Settings) -> Deployment {
    Deployment {
        metadata: meta(settings, names::OPERATOR),
        spec: Some(DeploymentSpec {
            replicas: Some(REPLICAS),
            selector: selector(),
            // A new replica answers before an old one goes.
            strategy: Some(DeploymentStrategy {
                type_: Some("RollingUpdate".to_owned()),
                rolling_update: Some(RollingUpdateDeployment {
                    max_surge: Some(IntOrString::Int(1)),
                    max_unavailable: Some(IntOrString::Int(0)),
                }),
            }),
            template: PodTemplateSpec {
                metadata: Some(ObjectMeta { labels: Some(pod_labels()), ..ObjectMeta::default() }),
                spec: Some(pod(settings)),
            },
            ..DeploymentSpec::default()
        }),
        ..Deployment::default()
    }
}

fn pod(settings: &Settings) -> PodSpec {
    PodSpec {
        service_account_name: Some(names::OPERATOR.to_owned()),
        automount_service_account_token: Some(true),
        termination_grace_period_seconds: Some(GRACE_SECONDS),
        security_context: Some(PodSecurityContext {
            run_as_non_root: Some(true),
            run_as_user: Some(USER),
            run_as_group: Some(USER),
            seccomp_profile: Some(SeccompProfile {
                type_: "RuntimeDefault".to_owned(),
                ..SeccompProfile::default()
            }),
            ..PodSecurityContext::default()
        }),
        topology_spread_constraints: Some(vec![
            spread("kubernetes.io/hostname"),
            spread("topology.kubernetes.io/zone"),
        ]),
        containers: vec![container(settings)],
        volumes: Some(vec![empty(SPOOL, SPOOL_SIZE, None), empty(SCRATCH, SCRATCH_SIZE, Some("Memory"))]),
        ..PodSpec::default()
    }
}

/// An empty volume that goes with the pod.
fn empty(name: &str, size: &str, medium: Option<&str>) -> Volume {
    Volume {
        name: name.to_owned(),
        empty_dir: Some(EmptyDirVolumeSource {
            size_limit: Some(Quantity(size.to_owned())),
            medium: medium.map(str::to_owned),
        }),
        ..Volume::default()
    }
}

fn mounted(name: &str, path: &str) -> VolumeMount {
    VolumeMount { name: name.to_owned(), mount_path: path.to_owned(), ..VolumeMount::default() }
}

fn container(settings: &Settings) -> Container {
    Container {
        name: "driftguard".to_owned(),
        image: Some(settings.image.clone()),
        args: Some(serve_arguments(settings)),
        ports: Some(vec![port("webhook", names::WEBHOOK_PORT), port("health", names::HEALTH_PORT)]),
        liveness_probe: Some(probe("/livez", 10, 6)),
        // Unready quickly: API servers must stop choosing a replica that drains.
        readiness_probe: Some(probe("/readyz", 2, 2)),
        startup_probe: Some(probe("/livez", 1, 60)),
        resources: Some(ResourceRequirements {
            requests: Some(quantities(&[("cpu", "50m"), ("memory", "64Mi")])),
            // A review may hold 24 MiB, and what is fetched from git counts; no CPU limit, since throttling delays
            // other people's writes.
            limits: Some(quantities(&[("memory", "896Mi")])),
            ..ResourceRequirements::default()
        }),
        volume_mounts: Some(vec![mounted(SPOOL, SPOOL_PATH), mounted(SCRATCH, SCRATCH_PATH)]),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            privileged: Some(false),
            read_only_root_filesystem: Some(true),
            run_as_non_root: Some(true),
            capabilities: Some(Capabilities { drop: Some(vec!["ALL".to_owned()]), add: None }),
            ..SecurityContext::default()
        }),
        ..Container::default()
    }
}

/// How the pods call `serve`.
#[must_use]
pub fn serve_arguments(settings: &Settings) -> Vec<String> {
    let mut arguments = vec![
        "serve".to_owned(),
        format!("--webhook-service={}/{}", settings.namespace, names::WEBHOOK_SERVICE),
        format!("--spool-dir={SPOOL_PATH}"),
        format!("--git-folder={SCRATCH_PATH}"),
    ];
    if settings.default_enforcement != Enforcement::Deny {
        arguments.push(format!("--default-enforcement={}", settings.default_enforcement.as_str()));
    }
    arguments
}

fn pod_labels() -> BTreeMap<String, String> {
    let mut all = labels::operator();
    all.extend(labels::operator_selector());
    all
}

pub(super) fn selector() -> LabelSelector {
    LabelSelector { match_labels: Some(labels::operator_selector()), ..LabelSelector::default() }
}

pub(super) fn meta(settings: &Settings, name: &str) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.to_owned()),
        namespace: Some(settings.namespace.clone()),
        labels: Some(labels::operator()),
        ..ObjectMeta::default()
    }
}

fn spread(key: &str) -> TopologySpreadConstraint {
    TopologySpreadConstraint {
        max_skew: 1,
        topology_key: key.to_owned(),
        // A cluster of one node must still get both.
        when_unsatisfiable: "ScheduleAnyway".to_owned(),
        label_selector: Some(selector()),
        ..TopologySpreadConstraint::default()
    }
}

fn probe(path: &str, period_seconds: i32, failures: i32) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.to_owned()),
            port: IntOrString::String("health".to_owned()),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(period_seconds),
        failure_threshold: Some(failures),
        ..Probe::default()
    }
}

fn port(name: &str, number: u16) -> ContainerPort {
    ContainerPort {
        name: Some(name.to_owned()),
        container_port: number.into(),
        protocol: Some("TCP".to_owned()),
        ..ContainerPort::default()
    }
}

fn quantities(pairs: &[(&str, &str)]) -> BTreeMap<String, Quantity> {
    pairs.iter().map(|&(name, amount)| (name.to_owned(), Quantity(amount.to_owned()))).collect()
}
