//! What a refusal means for what comes after it.

use super::*;
use crate::SyncState;

const LISTENER: TypeUrl = TypeUrl::Listener;
const ROUTE: TypeUrl = TypeUrl::Route;
const CLUSTER: TypeUrl = TypeUrl::Cluster;

#[test]
fn names_that_come_with_a_refusal_are_answered() {
    for variant in [Variant::Sotw, Variant::Delta] {
        let mut session = Session::new(variant);
        synced(&mut session, &ROUTE, &["80"], vec![resource("80", "1")]);
        let answer = session.push(&ROUTE, vec![resource("80", "bad")], "v2", NOW).unwrap();
        let names_now: &[&str] = if variant == Variant::Sotw { &["80", "81"] } else { &["81"] };
        let reaction = session.take(&refusal(ROUTE, &answer.nonce, names_now));
        assert_eq!(reaction.verdict, Some(Verdict::Refused("no".into())), "{variant:?}");
        let wanted = reaction.respond.unwrap();
        assert_eq!(wanted, Wanted::Names(["81".into()].into()), "{variant:?}");
        let answer = session.respond(&ROUTE, &wanted, vec![resource("81", "1")], "v2", NOW).unwrap();
        assert_eq!(names(&answer), ["81"]);
        // The new route is accepted, the old one is still refused.
        let repeat = if variant == Variant::Sotw { names_now } else { &[] };
        session.take(&ask(ROUTE, &answer.nonce, repeat));
        assert_eq!(session.status_of(&ROUTE).state(), SyncState::Error, "{variant:?}");
    }
}

#[test]
fn a_refusal_is_shown_until_the_resource_is_accepted() {
    let mut session = Session::new(Variant::Delta);
    synced(&mut session, &LISTENER, &[], vec![resource("a", "1"), resource("b", "1")]);
    let answer = session.push(&LISTENER, vec![resource("a", "bad"), resource("b", "1")], "v", NOW).unwrap();
    session.take(&refusal(LISTENER, &answer.nonce, &[]));
    // Another listener changes and is accepted.
    let answer = session.push(&LISTENER, vec![resource("a", "bad"), resource("b", "2")], "v", NOW).unwrap();
    assert_eq!(names(&answer), ["b"]);
    session.take(&ask(LISTENER, &answer.nonce, &[]));
    let status = session.status_of(&LISTENER);
    assert_eq!((status.state(), status.last_error.as_deref()), (SyncState::Error, Some("no")));
    // Sent again, and not accepted yet.
    let answer = session.push(&LISTENER, vec![resource("a", "2"), resource("b", "2")], "v", NOW).unwrap();
    assert_eq!(session.status_of(&LISTENER).state(), SyncState::Error);
    session.take(&ask(LISTENER, &answer.nonce, &[]));
    assert_eq!(session.status_of(&LISTENER).state(), SyncState::Synced);
}

#[test]
fn a_refused_resource_that_is_removed_is_no_error_any_more() {
    for variant in [Variant::Sotw, Variant::Delta] {
        let mut session = Session::new(variant);
        synced(&mut session, &LISTENER, &[], vec![resource("a", "1"), resource("b", "1")]);
        let answer =
            session.push(&LISTENER, vec![resource("a", "bad"), resource("b", "1")], "v", NOW).unwrap();
        session.take(&refusal(LISTENER, &answer.nonce, &[]));
        let answer = session.push(&LISTENER, vec![resource("b", "1")], "v", NOW).unwrap();
        session.take(&ask(LISTENER, &answer.nonce, &[]));
        assert_eq!(session.status_of(&LISTENER).state(), SyncState::Synced, "{variant:?}");
    }
}

#[test]
fn a_refused_resource_that_the_client_drops_is_no_error_any_more() {
    for variant in [Variant::Sotw, Variant::Delta] {
        let is_sotw = variant == Variant::Sotw;
        let mut session = Session::new(variant);
        synced(&mut session, &ROUTE, &["80", "81"], vec![resource("80", "1"), resource("81", "1")]);
        let answer =
            session.push(&ROUTE, vec![resource("80", "bad"), resource("81", "1")], "v", NOW).unwrap();
        session.take(&refusal(ROUTE, &answer.nonce, if is_sotw { &["80", "81"] } else { &[] }));
        assert!(session.status_of(&ROUTE).last_error.is_some());
        let drop = if is_sotw {
            refusal(ROUTE, &answer.nonce, &["81"])
        } else {
            Request { unsubscribe: vec!["80".into()], ..ask(ROUTE, "", &[]) }
        };
        session.take(&drop);
        assert_eq!(session.status_of(&ROUTE).last_error, None, "{variant:?}");
    }
}

#[test]
fn a_refusal_of_an_overtaken_response_is_booked() {
    let mut session = Session::new(Variant::Delta);
    synced(&mut session, &LISTENER, &[], vec![resource("a", "1"), resource("b", "1")]);
    let first = session.push(&LISTENER, vec![resource("a", "bad"), resource("b", "1")], "v", NOW).unwrap();
    let second = session.push(&LISTENER, vec![resource("a", "bad"), resource("b", "2")], "v", NOW).unwrap();
    let reaction = session.take(&refusal(LISTENER, &first.nonce, &[]));
    assert!(reaction.is_overtaken);
    assert_eq!(reaction.verdict, Some(Verdict::Refused("no".into())));
    session.take(&ask(LISTENER, &second.nonce, &[]));
    assert_eq!(session.status_of(&LISTENER).last_error.as_deref(), Some("no"));

    // A response that was sent again in whole: the answer to the later one decides.
    let mut session = Session::new(Variant::Delta);
    synced(&mut session, &LISTENER, &[], vec![resource("a", "1")]);
    let first = session.push(&LISTENER, vec![resource("a", "bad")], "v", NOW).unwrap();
    let second = session.push(&LISTENER, vec![resource("a", "2")], "v", NOW).unwrap();
    session.take(&refusal(LISTENER, &first.nonce, &[]));
    assert_eq!(session.status_of(&LISTENER).last_error.as_deref(), Some("no"));
    session.take(&ask(LISTENER, &second.nonce, &[]));
    assert_eq!(session.status_of(&LISTENER).state(), SyncState::Synced);
}

#[test]
fn a_refusal_with_a_made_up_nonce_or_a_long_text_does_no_harm() {
    for variant in [Variant::Sotw, Variant::Delta] {
        let mut session = Session::new(variant);
        synced(&mut session, &LISTENER, &[], vec![resource("a", "1")]);
        let long = "é".repeat(100_000);
        let request = Request { error: Some(long), ..ask(LISTENER, "garbage", &[]) };
        assert!(matches!(session.take(&request).verdict, Some(Verdict::Refused(_))));
        assert!(session.status_of(&LISTENER).last_error.as_ref().is_some_and(|error| error.len() < 5000));
        let answer = session.push(&LISTENER, vec![resource("a", "2")], "v", NOW).unwrap();
        session.take(&ask(LISTENER, &answer.nonce, &[]));
        assert_eq!(session.status_of(&LISTENER).state(), SyncState::Synced);
    }
}

#[test]
fn clusters_stay_while_a_refused_route_may_use_them() {
    for (variant, type_url, name) in [
        (Variant::Sotw, ROUTE, "80"),
        (Variant::Delta, ROUTE, "80"),
        (Variant::Sotw, LISTENER, "l"),
        (Variant::Delta, LISTENER, "l"),
    ] {
        let mut session = Session::new(variant);
        let subscribe: &[&str] = if type_url == ROUTE { &["80"] } else { &[] };
        let repeat: &[&str] = if variant == Variant::Sotw { subscribe } else { &[] };
        synced(&mut session, &CLUSTER, &[], vec![resource("a", "1"), resource("b", "1")]);
        synced(&mut session, &TypeUrl::Endpoint, &["a", "b"], vec![resource("a", "1"), resource("b", "1")]);
        synced(&mut session, &type_url, subscribe, vec![resource(name, "to b")]);
        // Cluster b goes with the route to it, but the client refuses the new route.
        assert_eq!(session.push(&CLUSTER, vec![resource("a", "1")], "v2", NOW), None);
        let answer = session.push(&type_url, vec![resource(name, "bad")], "v2", NOW).unwrap();
        session.take(&refusal(type_url.clone(), &answer.nonce, repeat));
        assert_eq!(session.settle("v2", NOW), None, "{variant:?} {type_url:?}: b is in use");
        let endpoints = vec![resource("a", "1"), resource("b", "empty")];
        assert_eq!(session.push(&TypeUrl::Endpoint, endpoints, "v2", NOW), None, "b keeps its endpoints");

        // A cluster that comes and goes meanwhile is in no old route.
        let answer = session.push(&CLUSTER, vec![resource("a", "1"), resource("c", "1")], "v3", NOW).unwrap();
        session.take(&ask(CLUSTER, &answer.nonce, &[]));
        assert_eq!(session.push(&CLUSTER, vec![resource("a", "1")], "v4", NOW), None);
        let answer = session.settle("v4", NOW).unwrap();
        match variant {
            Variant::Sotw => assert_eq!(names(&answer), ["a", "b"]),
            Variant::Delta => assert_eq!(answer.removed, ["c".into()]),
        }
        session.take(&ask(CLUSTER, &answer.nonce, &[]));
        assert_eq!(session.settle("v4", NOW), None);

        let answer = session.push(&type_url, vec![resource(name, "to a")], "v5", NOW).unwrap();
        session.take(&ask(type_url.clone(), &answer.nonce, repeat));
        let answer = session.settle("v5", NOW).unwrap();
        assert_eq!(answer.removed, ["b".into()], "{variant:?} {type_url:?}");
    }
}

#[test]
fn clusters_stay_through_several_refusals() {
    let mut session = Session::new(Variant::Delta);
    let clusters = |names: &[&str]| names.iter().map(|name| resource(name, "1")).collect::<Vec<_>>();
    let routes = |one, two| vec![resource("80", one), resource("81", two)];
    synced(&mut session, &CLUSTER, &[], clusters(&["a", "b"]));
    synced(&mut session, &ROUTE, &["80", "81"], routes("to b", "to a"));
    session.push(&CLUSTER, clusters(&["a"]), "v", NOW);
    for body in ["bad", "worse"] {
        let answer = session.push(&ROUTE, routes(body, "to a"), "v", NOW).unwrap();
        session.take(&refusal(ROUTE, &answer.nonce, &[]));
        assert_eq!(session.settle("v", NOW), None, "{body}");
    }
    // Another route leads to a new cluster c, then away from it again, and that is refused.
    let answer = session.push(&CLUSTER, clusters(&["a", "c"]), "v", NOW).unwrap();
    session.take(&ask(CLUSTER, &answer.nonce, &[]));
    let answer = session.push(&ROUTE, routes("worse", "to c"), "v", NOW).unwrap();
    session.take(&ask(ROUTE, &answer.nonce, &[]));
    session.push(&CLUSTER, clusters(&["a"]), "v", NOW);
    let answer = session.push(&ROUTE, routes("worst", "bad"), "v", NOW).unwrap();
    session.take(&refusal(ROUTE, &answer.nonce, &[]));
    assert_eq!(session.settle("v", NOW), None, "route 81 leads to c");
    // Route 81 gets well: c goes, though route 80 was refused after it came.
    let answer = session.push(&ROUTE, routes("worst", "to a"), "v", NOW).unwrap();
    session.take(&ask(ROUTE, &answer.nonce, &[]));
    let answer = session.settle("v", NOW).unwrap();
    assert_eq!(answer.removed, ["c".into()], "route 80 leads to b");
    session.take(&ask(CLUSTER, &answer.nonce, &[]));
    let answer = session.push(&ROUTE, routes("to a", "to a"), "v", NOW).unwrap();
    session.take(&ask(ROUTE, &answer.nonce, &[]));
    assert_eq!(session.settle("v", NOW).unwrap().removed, ["b".into()]);
}
