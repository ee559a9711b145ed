//! The gate, case by case, on a real API server with the real kubectl; each case both through a loopback
//! URL and through a Service.

use anyhow::Result;

use crate::installation::{Installation, Via};

mod deletion;
mod hooks;
mod kinds;
mod limits;
mod modes;
mod objects;
mod subresources;
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
    modes::case_05_replace_force_with_other_content_makes_nothing,
    modes::case_08_a_rewrite_keeps_the_original_and_warns,
    modes::case_09_nothing_is_put_back_into_a_drifted_object,
    modes::case_61_eight_writers_store_nothing_that_is_not_approved,
    modes::case_67_a_rewrite_is_no_write_at_all,
    modes::case_76_hash_on_the_server_tells_the_true_hash_in_every_mode,
    modes::what_cannot_be_rewritten_is_refused_with_the_reason,
    modes::ignored_paths_are_left_as_a_rewrite_finds_them,
    modes::warn_and_audit_let_through_and_record,
    modes::mixed_modes_of_one_object_add_up_and_both_hooks_agree,
    subresources::case_18_scaling_passes_where_the_count_is_ignored,
    subresources::case_19_scaling_is_refused_and_the_approved_count_passes,
    subresources::a_custom_resource_is_scaled_where_its_crd_says,
    subresources::case_65_no_subresource_of_a_pod_is_a_way_around,
    subresources::case_65_a_guarded_namespace_still_finishes_its_deletion,
    deletion::case_20_a_finalizer_comes_and_goes_on_a_drifted_target,
    deletion::case_22_deletion_follows_the_policy,
    deletion::case_23_delete_all_takes_what_may_be_deleted,
    deletion::a_terminating_namespace_takes_along_what_may_not_be_deleted,
    hooks::case_32_a_later_webhook_that_alters_data_is_refused,
    hooks::case_66_a_webhook_that_renames_gives_no_other_content_a_name,
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
    modes::case_08_a_rewrite_keeps_the_original_and_warns,
    modes::case_67_a_rewrite_is_no_write_at_all,
    modes::case_76_hash_on_the_server_tells_the_true_hash_in_every_mode,
    modes::warn_and_audit_let_through_and_record,
    subresources::case_18_scaling_passes_where_the_count_is_ignored,
    subresources::case_19_scaling_is_refused_and_the_approved_count_passes,
    subresources::case_65_no_subresource_of_a_pod_is_a_way_around,
    deletion::case_20_a_finalizer_comes_and_goes_on_a_drifted_target,
    deletion::case_22_deletion_follows_the_policy,
    hooks::case_32_a_later_webhook_that_alters_data_is_refused,
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
    // Some numbers have several cases.
    let letter = if known == 2 { case.split('_').nth(2).map(|word| format!("-{word}")) } else { None };
    let name = format!("{}{}", words[..known].join("-"), letter.unwrap_or_default());
    let namespace = installation.namespace(&name)?;
    body(installation, &namespace)
}
