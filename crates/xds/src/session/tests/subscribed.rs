//! The wildcard, its coming and going, and the bounds of a subscription.

use super::*;

fn unsubscribe(type_url: TypeUrl, names: &[&str]) -> Request {
    Request { unsubscribe: names.iter().map(|&name| name.into()).collect(), ..ask(type_url, "", &[]) }
}

fn two() -> Vec<Resource> {
    vec![resource("a", "1"), resource("b", "1")]
}

#[test]
fn a_star_is_the_wildcard_in_both_variants() {
    for variant in [Variant::Sotw, Variant::Delta] {
        for type_url in [TypeUrl::Cluster, TypeUrl::Listener] {
            let mut session = Session::new(variant);
            let wanted = session.wants(&ask(type_url.clone(), "", &["*"]));
            assert_eq!(wanted, Wanted::All, "{variant:?} {type_url:?}");
            let answer = session.respond(&type_url, &wanted, two(), "v", NOW).unwrap();
            assert_eq!((names(&answer), answer.removed.len()), (vec!["a", "b"], 0));
            let repeat: &[&str] = if variant == Variant::Sotw { &["*"] } else { &[] };
            assert_eq!(session.take(&ask(type_url.clone(), &answer.nonce, repeat)), accepted());
            let answer = session.push(&type_url, vec![resource("a", "2"), resource("b", "1")], "v", NOW);
            assert!(answer.is_some(), "{variant:?} {type_url:?}");
        }
        let mut session = Session::new(variant);
        let wanted = session.wants(&ask(TypeUrl::Endpoint, "", &["*"]));
        assert_eq!(wanted, Wanted::Names(["*".into()].into()), "endpoints have no wildcard");
    }
}

#[test]
fn a_wildcard_given_up_and_taken_again_brings_everything() {
    let mut session = Session::new(Variant::Delta);
    let cluster = TypeUrl::Cluster;
    synced(&mut session, &cluster, &["*", "a"], two());
    assert_eq!(session.take(&unsubscribe(cluster.clone(), &["*"])).respond, None);
    let answer = session.push(&cluster, vec![resource("a", "2")], "v", NOW).unwrap();
    assert_eq!(names(&answer), ["a"], "the name of its own stays");
    for _ in ["again", "and while it has it"] {
        let wanted = session.wants(&ask(cluster.clone(), "", &["*"]));
        let answer = session.respond(&cluster, &wanted, two(), "v", NOW).unwrap();
        assert_eq!(names(&answer), ["a", "b"]);
    }
}

#[test]
fn a_star_with_names_answers_both() {
    let mut session = Session::new(Variant::Delta);
    let listener = TypeUrl::Listener;
    synced(&mut session, &listener, &["a"], vec![resource("a", "1")]);
    let wanted = session.wants(&ask(listener.clone(), "", &["*", "nowhere"]));
    let answer = session.respond(&listener, &wanted, two(), "v", NOW).unwrap();
    assert_eq!(names(&answer), ["a", "b"]);
    assert_eq!(answer.removed, ["nowhere".into()]);
}

#[test]
fn a_name_dropped_under_the_wildcard_is_sent_again() {
    let mut session = Session::new(Variant::Delta);
    let listener = TypeUrl::Listener;
    synced(&mut session, &listener, &["*", "a"], two());
    let wanted = session.wants(&unsubscribe(listener.clone(), &["a"]));
    let answer = session.respond(&listener, &wanted, vec![resource("a", "1")], "v", NOW).unwrap();
    assert_eq!(names(&answer), ["a"]);
}

#[test]
fn sotw_repeats_every_named_cluster_and_listener() {
    let mut session = Session::new(Variant::Sotw);
    let listener = TypeUrl::Listener;
    synced(&mut session, &listener, &["a"], vec![resource("a", "1")]);
    let nonce = session.status_of(&listener).sent_nonce.clone().unwrap();
    let wanted = session.wants(&ask(listener.clone(), &nonce, &["a", "b"]));
    let answer = session.respond(&listener, &wanted, two(), "v", NOW).unwrap();
    assert_eq!(names(&answer), ["a", "b"], "what is missing in a response is gone");
    // No names after names: nothing is wanted any more.
    assert_eq!(session.take(&ask(listener.clone(), &answer.nonce, &[])).respond, None);
    assert_eq!(session.wanted(&listener), None);
}

#[test]
fn a_subscription_has_bounds() {
    let many: Vec<String> = (0..=MAX_NAMES).map(|index| index.to_string()).collect();
    for variant in [Variant::Sotw, Variant::Delta] {
        let mut session = Session::new(variant);
        let request = Request { subscribe: many.clone(), ..ask(TypeUrl::Endpoint, "", &[]) };
        let error = session.request(&request, NOW).unwrap_err();
        assert_eq!(error.names, MAX_NAMES + 1, "{variant:?}");
        assert!(error.to_string().contains("at most 100000 names"), "{error}");
    }
    // In many messages, few names, long ones.
    let mut session = Session::new(Variant::Delta);
    let long = |index: usize| Request {
        subscribe: vec![format!("{index}{}", "x".repeat(1 << 20))],
        ..ask(TypeUrl::Endpoint, "", &[])
    };
    let end = (0..100).find_map(|index| session.request(&long(index), NOW).err()).unwrap();
    assert_eq!(end.names, 16);
}

#[test]
fn names_that_are_dropped_leave_nothing_behind() {
    let mut session = Session::new(Variant::Delta);
    let endpoint = TypeUrl::Endpoint;
    synced(&mut session, &endpoint, &["kept"], vec![resource("kept", "1")]);
    for index in 0..1000 {
        let name = format!("{index}{}", "x".repeat(1 << 16));
        session.take(&ask(endpoint.clone(), "", &[&name]));
        session.take(&unsubscribe(endpoint.clone(), &[&name]));
    }
    let watch = &session.watches[&endpoint];
    assert_eq!((watch.names.get().len(), watch.has.len(), watch.force.len()), (1, 1, 0));
}

#[test]
fn a_type_that_nobody_serves_is_answered_and_forgotten() {
    for variant in [Variant::Sotw, Variant::Delta] {
        let mut session = Session::new(variant);
        for index in 0..100 {
            let type_url = TypeUrl::Other(format!("no.such.Type{index}").into());
            let wanted = session.wants(&ask(type_url.clone(), "", &["x"]));
            let answer = session.respond(&type_url, &wanted, Vec::new(), "v", NOW).unwrap();
            assert_eq!((names(&answer).len(), answer.removed.as_slice()), (0, &["x".into()][..]));
            let repeat: &[&str] = if variant == Variant::Sotw { &["x"] } else { &[] };
            assert_eq!(session.take(&ask(type_url, &answer.nonce, repeat)).respond, None);
        }
        assert_eq!(session.take(&ask(TypeUrl::Health, "", &[])).respond, None);
        assert_eq!(session.status().count(), 0, "{variant:?}");
    }
}
