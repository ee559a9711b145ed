//! Who may reach the pods, and whom they may reach.

use k8s_openapi::api::networking::v1::{
    NetworkPolicy, NetworkPolicyEgressRule, NetworkPolicyIngressRule, NetworkPolicyPeer, NetworkPolicyPort,
    NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::api::names;

use super::{Settings, deploy};

/// Label of the namespaces whose pods may read metrics, with the value `true`.
pub const METRICS_LABEL: &str = "driftguard.terrafusion.ai/metrics";

/// Ports that API servers listen on: behind the Service `kubernetes` and, as most network plugins
/// judge after its address was translated, at the servers themselves.
const API_SERVER_PORTS: [u16; 2] = [443, 6443];

/// Port of git servers by ssh; by https they are at a port of [`API_SERVER_PORTS`].
const SSH: u16 = 22;

/// Reviews from everywhere, metrics from few; out only to API servers, DNS and sources of truth. So the
/// metadata services of clouds, which speak plain http outside of pods, are out of reach.
#[must_use]
pub fn policy(settings: &Settings) -> NetworkPolicy {
    NetworkPolicy {
        metadata: deploy::meta(settings, names::OPERATOR),
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(deploy::selector()),
            policy_types: Some(vec!["Ingress".to_owned(), "Egress".to_owned()]),
            ingress: Some(vec![
                // API servers are on host networks, outside the cluster or behind a tunnel: their
                // addresses cannot be known here, and one that is kept out refuses guarded writes.
                NetworkPolicyIngressRule { from: None, ports: Some(vec![port("TCP", names::WEBHOOK_PORT)]) },
                // Probes come from the pod's own node, which no policy keeps out.
                NetworkPolicyIngressRule {
                    from: Some(vec![
                        NetworkPolicyPeer {
                            pod_selector: Some(LabelSelector::default()),
                            ..NetworkPolicyPeer::default()
                        },
                        NetworkPolicyPeer {
                            namespace_selector: Some(LabelSelector {
                                match_labels: Some([(METRICS_LABEL.to_owned(), "true".to_owned())].into()),
                                ..LabelSelector::default()
                            }),
                            ..NetworkPolicyPeer::default()
                        },
                    ]),
                    ports: Some(vec![port("TCP", names::HEALTH_PORT)]),
                },
            ]),
            egress: Some(vec![
                NetworkPolicyEgressRule {
                    to: None,
                    ports: Some(API_SERVER_PORTS.map(|number| port("TCP", number)).into()),
                },
                NetworkPolicyEgressRule { to: None, ports: Some(vec![port("UDP", 53), port("TCP", 53)]) },
                // Services that are sources lead to pods at ports of their own choice.
                NetworkPolicyEgressRule {
                    to: Some(vec![NetworkPolicyPeer {
                        namespace_selector: Some(LabelSelector::default()),
                        ..NetworkPolicyPeer::default()
                    }]),
                    ports: None,
                },
                NetworkPolicyEgressRule { to: None, ports: Some(vec![port("TCP", SSH)]) },
            ]),
        }),
    }
}

fn port(protocol: &str, number: u16) -> NetworkPolicyPort {
    NetworkPolicyPort {
        protocol: Some(protocol.to_owned()),
        port: Some(IntOrString::Int(number.into())),
        end_port: None,
    }
}
