//! The gate, case by case, on a real API server with the real kubectl; each case both through a loopback
//! URL and through a Service.

use anyhow::Result;

use crate::installation::{Installation, Via};

mod kinds;
mod limits;
mod objects;
mod users;
mod writes;

/// Makes a test of each case for each way of reaching the webhook.
macro_rules! cases {
    ($($module:ident :: $case:ident),* $(,)?) => {
        mod by_url {
            $(#[test] fn $case() -> anyhow::Result<()> {
                super::run(super::Via::Url, stringify!($case), super::$module::$case)
            })*
        }
        mod by_service {
            $(#[test] fn $case() -> anyhow::Result<()> {
                super::run(super::Via::Service, stringify!($case), super::$module::$case)
            })*
        }
    };
}

cases![
    writes::case_01_kubectl_edit_is_refused,
    writes::case_02_client_side_apply_is_refused_and_approved_content_passes,
    writes::case_03_every_kind_of_patch_is_refused,
    writes::case_04_replace_is_refused,
    writes::case_06_server_side_apply_is_refused_with_and_without_force,
    writes::case_07_a_missing_target_is_made_only_with_the_exact_content,
    writes::case_13_a_patch_that_changes_nothing_passes,
    writes::case_27_a_server_dry_run_is_refused_and_recorded_nowhere,
    writes::case_31_generated_names_are_judged_by_the_name_they_get,
    objects::case_10_a_guard_may_come_before_its_target,
    objects::case_11_a_target_that_was_there_before_changes_only_to_what_is_approved,
    objects::case_14_binary_data_cannot_be_added,
    objects::case_16_labels_pass_on_clean_and_on_drifted_targets,
    objects::case_21_a_terminating_object_keeps_its_content,
    objects::case_28_a_secret_given_as_string_data_is_compared_by_its_value,
    kinds::case_12_another_served_version_is_no_way_around,
    kinds::case_15_a_workload_takes_no_further_container_or_volume,
    kinds::case_17_status_passes_and_leaves_the_spec_alone,
    kinds::case_29_numbers_and_empty_maps_that_mean_the_same_are_the_same,
    limits::case_46_objects_of_3_mib_and_of_depth_5000_are_guarded,
    users::everybody_is_refused_alike,
    users::a_write_that_no_guard_covers_makes_no_call,
    users::after_the_wait_the_very_next_edit_is_refused,
];

/// A smoke set on the older Kubernetes: the ways to write, not every detail of the gate.
macro_rules! older_cases {
    ($($module:ident :: $case:ident),* $(,)?) => {
        mod on_the_older_kubernetes {
            $(#[test] fn $case() -> anyhow::Result<()> {
                super::run_on(super::Installation::shared_older()?, stringify!($case), super::$module::$case)
            })*
        }
    };
}

older_cases![
    writes::case_01_kubectl_edit_is_refused,
    writes::case_02_client_side_apply_is_refused_and_approved_content_passes,
    writes::case_03_every_kind_of_patch_is_refused,
    writes::case_06_server_side_apply_is_refused_with_and_without_force,
    writes::case_07_a_missing_target_is_made_only_with_the_exact_content,
    writes::case_27_a_server_dry_run_is_refused_and_recorded_nowhere,
    objects::case_16_labels_pass_on_clean_and_on_drifted_targets,
    objects::case_21_a_terminating_object_keeps_its_content,
    objects::case_28_a_secret_given_as_string_data_is_compared_by_its_value,
    kinds::case_12_another_served_version_is_no_way_around,
    kinds::case_15_a_workload_takes_no_further_container_or_volume,
];

fn run(via: Via, case: &str, body: impl FnOnce(&Installation, &str) -> Result<()>) -> Result<()> {
    run_on(Installation::shared(via)?, case, body)
}

fn run_on(
    installation: &'static Installation,
    case: &str,
    body: impl FnOnce(&Installation, &str) -> Result<()>,
) -> Result<()> {
    // A namespace for each case, named by its number or the first words of its sentence: messages that
    // hold long names give up detail.
    let words: Vec<&str> = case.splitn(4, '_').collect();
    let known = if words[0] == "case" { 2 } else { 3 };
    let namespace = installation.namespace(&words[..known].join("-"))?;
    body(installation, &namespace)
}
