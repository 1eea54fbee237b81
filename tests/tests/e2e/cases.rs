//! The case families of Istio's own traffic tests, as tables: each file of
//! `data/cases` is one family, run by one small runner (`cases/table.rs`) on one
//! mesh (`cases/world.rs`).

#[path = "cases/expect.rs"]
mod expect;
#[path = "cases/table.rs"]
mod table;
#[path = "cases/world.rs"]
mod world;

use istio_tests::mesh::Mesh;

pub(crate) use world::start;

use super::Case;

/// One family from its file.
macro_rules! family {
    ($name:literal, $file:literal) => {
        ($name, |mesh: &mut Mesh| {
            table::run(mesh, include_str!(concat!("../../data/cases/", $file, ".yaml")))
        })
    };
}

pub(crate) const CASES: &[Case] = &[
    family!("calls_of_every_protocol_arrive_at_every_kind_of_port", "sniffing"),
    family!("a_server_that_speaks_first_is_heard_where_nobody_waits_for_the_client", "server-first"),
    family!("an_ingress_endpoint_decides_at_which_address_the_application_is_called", "instance-ip"),
    family!("a_host_may_be_written_in_every_form", "hosts"),
    family!("services_that_overlap_and_other_names_lead_to_the_right_port", "services"),
    family!("a_pod_calls_itself", "self"),
    family!("calls_to_the_ports_of_the_proxy_do_not_loop", "loop"),
    family!("virtual_services_do_what_they_say", "virtual-service"),
    family!("destination_rules_do_what_they_say", "destination-rule"),
    family!("calls_with_one_key_go_to_one_server", "consistent-hash"),
    family!("connections_go_through_a_forward_proxy", "tunneling"),
    family!("the_place_of_a_server_decides_who_gets_calls", "locality"),
    family!("calls_stay_in_the_zone_as_far_as_it_has_servers_for_its_callers", "zones"),
    family!("who_the_client_is_comes_by_the_proxy_protocol_and_goes_on_by_it", "proxy-protocol"),
    family!("requests_of_grpc_are_refused_in_its_own_words", "grpc-policies"),
    family!("what_is_outside_is_reached_as_far_as_it_is_known", "external"),
    family!("proxies_show_the_headers_that_they_are_told_to", "headers"),
    family!("a_transparent_proxy_keeps_the_address_of_the_client", "original-source"),
];
