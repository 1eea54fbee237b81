use super::*;

use bytes::Bytes;

mod refused;
mod subscribed;

const NOW: SystemTime = SystemTime::UNIX_EPOCH;

fn resource(name: &str, body: &'static str) -> Resource {
    Resource::from_bytes(name, Bytes::from_static(body.as_bytes()))
}

fn ask(type_url: TypeUrl, nonce: &str, names: &[&str]) -> Request {
    Request {
        type_url,
        nonce: nonce.into(),
        error: None,
        subscribe: names.iter().map(|&name| name.into()).collect(),
        unsubscribe: Vec::new(),
        initial_versions: BTreeMap::new(),
    }
}

fn names(answer: &Answer) -> Vec<&str> {
    answer.resources.iter().map(|resource| &*resource.name).collect()
}

impl Session {
    fn take(&mut self, request: &Request) -> Reaction {
        self.request(request, NOW).unwrap()
    }

    /// What a request is answered with.
    fn wants(&mut self, request: &Request) -> Wanted {
        self.take(request).respond.unwrap_or_else(|| panic!("{request:?} is not answered"))
    }

    fn status_of(&self, type_url: &TypeUrl) -> &TypeStatus {
        &self.watches[type_url].status
    }
}

fn accepted() -> Reaction {
    Reaction { verdict: Some(Verdict::Accepted), ..Reaction::default() }
}

fn refusal(type_url: TypeUrl, nonce: &str, names: &[&str]) -> Request {
    Request { error: Some("no".into()), ..ask(type_url, nonce, names) }
}

/// Subscribes, answers and acknowledges.
fn synced(session: &mut Session, type_url: &TypeUrl, subscribe: &[&str], resources: Vec<Resource>) {
    let wanted = session.wants(&ask(type_url.clone(), "", subscribe));
    let answer = session.respond(type_url, &wanted, resources, "v", NOW).unwrap();
    let repeat = if session.variant() == Variant::Sotw { subscribe } else { &[] };
    assert_eq!(session.take(&ask(type_url.clone(), &answer.nonce, repeat)), accepted());
}

#[test]
fn delta_sends_only_what_changed() {
    let mut session = Session::new(Variant::Delta);
    let listener = TypeUrl::Listener;
    synced(&mut session, &listener, &[], vec![resource("a", "1"), resource("b", "1")]);
    assert_eq!(session.push(&listener, vec![resource("a", "1"), resource("b", "1")], "v2", NOW), None);
    let answer = session.push(&listener, vec![resource("a", "2"), resource("c", "1")], "v3", NOW).unwrap();
    assert_eq!(names(&answer), ["a", "c"]);
    assert_eq!(answer.removed, ["b".into()]);
}

#[test]
fn delta_resumes_from_initial_versions() {
    let mut session = Session::new(Variant::Delta);
    let mut first = ask(TypeUrl::Listener, "", &[]);
    first.initial_versions.insert("a".into(), resource("a", "1").version_text());
    first.initial_versions.insert("gone".into(), "1".into());
    let wanted = session.wants(&first);
    let all = vec![resource("a", "1"), resource("b", "1")];
    let answer = session.respond(&TypeUrl::Listener, &wanted, all, "v", NOW).unwrap();
    assert_eq!(names(&answer), ["b"]);
    assert_eq!(answer.removed, ["gone".into()]);
}

#[test]
fn delta_answers_names_asked_again() {
    let mut session = Session::new(Variant::Delta);
    let route = TypeUrl::Route;
    synced(&mut session, &route, &["80"], vec![resource("80", "1")]);
    let wanted = session.wants(&ask(route.clone(), "", &["80"]));
    let answer = session.respond(&route, &wanted, vec![resource("80", "1")], "v", NOW).unwrap();
    assert_eq!(names(&answer), ["80"]);
}

#[test]
fn endpoints_are_remembered_by_the_text_of_their_clusters() {
    for variant in [Variant::Sotw, Variant::Delta] {
        let mut session = Session::new(variant);
        let cluster = resource("a", "1");
        synced(&mut session, &TypeUrl::Cluster, &[], vec![cluster.clone()]);
        let wanted = session.wants(&ask(TypeUrl::Endpoint, "", &["a", "other"]));
        let Wanted::Names(names) = wanted else { panic!("{wanted:?}") };
        assert_eq!(names.len(), 2);
        let shared = names.get("a").unwrap();
        assert!(Arc::ptr_eq(shared, &cluster.name), "{variant:?}");
    }
}

#[test]
fn delta_says_that_a_name_does_not_exist() {
    let mut session = Session::new(Variant::Delta);
    let wanted = session.wants(&ask(TypeUrl::Route, "", &["x"]));
    let answer = session.respond(&TypeUrl::Route, &wanted, vec![], "v", NOW).unwrap();
    assert_eq!(answer.removed, ["x".into()]);
}

#[test]
fn a_refused_response_is_not_repeated_and_shown() {
    for variant in [Variant::Sotw, Variant::Delta] {
        let mut session = Session::new(variant);
        let cluster = TypeUrl::Cluster;
        synced(&mut session, &cluster, &[], vec![resource("a", "1")]);
        let answer = session.push(&cluster, vec![resource("a", "bad")], "v2", NOW).unwrap();
        let reaction = session.take(&refusal(cluster.clone(), &answer.nonce, &[]));
        assert_eq!((reaction.verdict, reaction.respond), (Some(Verdict::Refused("no".into())), None));
        let (_, status) = session.status().next().unwrap();
        assert_eq!(status.last_error.as_deref(), Some("no"));
        assert_eq!(status.state(), crate::SyncState::Error);
        assert_eq!(session.push(&cluster, vec![resource("a", "bad")], "v3", NOW), None);
        assert!(session.push(&cluster, vec![resource("a", "good")], "v4", NOW).is_some());
    }
}

#[test]
fn an_overtaken_or_invented_nonce_is_ignored() {
    for variant in [Variant::Sotw, Variant::Delta] {
        let mut session = Session::new(variant);
        synced(&mut session, &TypeUrl::Cluster, &[], vec![resource("a", "1")]);
        let reaction = session.take(&ask(TypeUrl::Cluster, "garbage", &[]));
        assert_eq!(reaction, Reaction { is_overtaken: true, ..Reaction::default() });
    }
}

#[test]
fn sotw_repeats_the_whole_state_of_wildcard_types() {
    let mut session = Session::new(Variant::Sotw);
    let listener = TypeUrl::Listener;
    synced(&mut session, &listener, &[], vec![resource("a", "1"), resource("b", "1")]);
    let answer = session.push(&listener, vec![resource("a", "1"), resource("b", "2")], "v", NOW).unwrap();
    assert_eq!(names(&answer), ["a", "b"]);
    let answer = session.push(&listener, vec![resource("a", "1")], "v", NOW).unwrap();
    assert_eq!(names(&answer), ["a"]);
    assert_eq!(session.push(&listener, vec![resource("a", "1")], "v", NOW), None);
}

#[test]
fn sotw_sends_only_added_names() {
    let mut session = Session::new(Variant::Sotw);
    let endpoint = TypeUrl::Endpoint;
    synced(&mut session, &endpoint, &["a"], vec![resource("a", "1")]);
    let nonce = session.watches[&endpoint].status.sent_nonce.clone().unwrap();
    let wanted = session.wants(&ask(endpoint.clone(), &nonce, &["a", "b"]));
    assert_eq!(wanted, Wanted::Names(["b".into()].into()));
    let answer = session.respond(&endpoint, &wanted, vec![resource("b", "1")], "v", NOW).unwrap();
    assert_eq!(names(&answer), ["b"]);
    assert_eq!(session.take(&ask(endpoint.clone(), &answer.nonce, &["a"])), accepted());
    assert_eq!(session.take(&ask(endpoint.clone(), "", &[])), Reaction::default());
    assert_eq!(session.wanted(&endpoint), None);
}

#[test]
fn clusters_go_after_routes_are_accepted() {
    for variant in [Variant::Sotw, Variant::Delta] {
        let mut session = Session::new(variant);
        synced(&mut session, &TypeUrl::Cluster, &[], vec![resource("a", "1"), resource("b", "1")]);
        synced(&mut session, &TypeUrl::Route, &["80"], vec![resource("80", "1")]);
        // One push removes cluster b and the route to it.
        let clusters = session.push(&TypeUrl::Cluster, vec![resource("a", "1")], "v2", NOW);
        assert_eq!(clusters, None, "{variant:?}: removed too early");
        let routes = session.push(&TypeUrl::Route, vec![resource("80", "2")], "v2", NOW).unwrap();
        assert_eq!(session.settle("v2", NOW), None);
        let repeat: &[&str] = if variant == Variant::Sotw { &["80"] } else { &[] };
        session.take(&ask(TypeUrl::Route, &routes.nonce, repeat));
        let answer = session.settle("v2", NOW).unwrap();
        match variant {
            Variant::Sotw => assert_eq!(names(&answer), ["a"]),
            Variant::Delta => assert_eq!(answer.removed, ["b".into()]),
        }
        assert_eq!(session.settle("v2", NOW), None);
    }
}

#[test]
fn changed_clusters_get_their_endpoints_again() {
    let mut session = Session::new(Variant::Delta);
    synced(&mut session, &TypeUrl::Cluster, &[], vec![resource("a", "1")]);
    synced(&mut session, &TypeUrl::Endpoint, &["a"], vec![resource("a", "e")]);
    assert_eq!(session.push(&TypeUrl::Endpoint, vec![resource("a", "e")], "v", NOW), None);
    session.push(&TypeUrl::Cluster, vec![resource("a", "2")], "v", NOW).unwrap();
    assert!(session.endpoints_due());
    let answer = session.push(&TypeUrl::Endpoint, vec![resource("a", "e")], "v", NOW).unwrap();
    assert_eq!(names(&answer), ["a"]);
    assert!(!session.endpoints_due());
}

#[test]
fn a_cluster_that_is_about_to_go_keeps_its_endpoints() {
    for variant in [Variant::Sotw, Variant::Delta] {
        let mut session = Session::new(variant);
        synced(&mut session, &TypeUrl::Cluster, &[], vec![resource("a", "1"), resource("b", "1")]);
        synced(&mut session, &TypeUrl::Endpoint, &["a", "b"], vec![resource("a", "1"), resource("b", "1")]);
        synced(&mut session, &TypeUrl::Route, &["r"], vec![resource("r", "1")]);
        session.push(&TypeUrl::Cluster, vec![resource("a", "1")], "v2", NOW);
        // Nobody knows endpoints of b any more; those of a have changed.
        let endpoints = vec![resource("a", "2"), resource("b", "empty")];
        let answer = session.push(&TypeUrl::Endpoint, endpoints, "v2", NOW).unwrap();
        assert_eq!((names(&answer), answer.removed.len()), (vec!["a"], 0), "{variant:?}");
    }
}

#[test]
fn routes_wait_until_the_endpoints_of_new_clusters_are_accepted() {
    for variant in [Variant::Sotw, Variant::Delta] {
        let mut session = Session::new(variant);
        let by_eds = |name| resource(name, "1").awaits_endpoints(true);
        synced(&mut session, &TypeUrl::Cluster, &[], vec![by_eds("a")]);
        synced(&mut session, &TypeUrl::Endpoint, &["a"], vec![resource("a", "1")]);
        assert!(!session.routes_must_wait(), "{variant:?}: only what a push makes counts");
        let fixed = resource("fixed", "1");
        let clusters = session.push(&TypeUrl::Cluster, vec![by_eds("a"), by_eds("b"), fixed], "v2", NOW);
        assert!(session.routes_must_wait());
        session.take(&ask(TypeUrl::Cluster, &clusters.unwrap().nonce, &[]));
        assert!(session.routes_must_wait(), "{variant:?}: accepted, but without endpoints");
        let names: &[&str] = if variant == Variant::Sotw { &["a", "b"] } else { &["b"] };
        let nonce = session.watches[&TypeUrl::Endpoint].status.sent_nonce.clone().unwrap();
        let wanted = session.wants(&ask(TypeUrl::Endpoint, &nonce, names));
        let answer =
            session.respond(&TypeUrl::Endpoint, &wanted, vec![resource("b", "1")], "v2", NOW).unwrap();
        assert!(session.routes_must_wait(), "{variant:?}: sent, but not accepted");
        let names: &[&str] = if variant == Variant::Sotw { names } else { &[] };
        session.take(&ask(TypeUrl::Endpoint, &answer.nonce, names));
        assert!(!session.routes_must_wait(), "{variant:?}");
    }
}

#[test]
fn a_push_of_some_names_says_nothing_of_others() {
    for variant in [Variant::Sotw, Variant::Delta] {
        let mut session = Session::new(variant);
        let endpoint = TypeUrl::Endpoint;
        let all = ["a", "b", "c"];
        synced(&mut session, &endpoint, &all, all.map(|name| resource(name, "1")).to_vec());
        let some = |names: &[&str]| names.iter().map(|&name| name.into()).collect();
        let same = vec![resource("a", "1")];
        assert_eq!(session.push_some(&endpoint, some(&["a"]), same, "v2", NOW), None, "{variant:?}");
        let changed = vec![resource("a", "1"), resource("b", "2")];
        let answer = session.push_some(&endpoint, some(&["a", "b"]), changed, "v3", NOW).unwrap();
        assert_eq!((names(&answer), answer.removed.len()), (vec!["b"], 0), "{variant:?}");
        // The others are as they were known.
        let whole = ["a", "b", "c"].map(|name| resource(name, if name == "b" { "2" } else { "1" }));
        assert_eq!(session.push(&endpoint, whole.to_vec(), "v4", NOW), None, "{variant:?}");
    }
}

#[test]
fn endpoints_that_are_due_are_named_until_they_are_sent() {
    let mut session = Session::new(Variant::Delta);
    synced(&mut session, &TypeUrl::Cluster, &[], vec![resource("a", "1"), resource("b", "1")]);
    let endpoints = ["a", "b"].map(|name| resource(name, "e")).to_vec();
    synced(&mut session, &TypeUrl::Endpoint, &["a", "b"], endpoints);
    session.push(&TypeUrl::Cluster, vec![resource("a", "2"), resource("b", "1")], "v", NOW).unwrap();
    let due = session.due().clone();
    assert_eq!(due, ["a".into()].into());
    let answer = session.push_some(&TypeUrl::Endpoint, due, vec![resource("a", "e")], "v", NOW).unwrap();
    assert_eq!(names(&answer), ["a"]);
    assert!(session.due().is_empty());
}

#[test]
fn everything_is_sent_again_when_it_must() {
    for variant in [Variant::Sotw, Variant::Delta] {
        let mut session = Session::new(variant);
        let all = vec![resource("a", "1"), resource("b", "1")];
        synced(&mut session, &TypeUrl::Listener, &[], all.clone());
        session.force_all();
        let answer = session.push(&TypeUrl::Listener, all.clone(), "v2", NOW).unwrap();
        assert_eq!(names(&answer), ["a", "b"], "{variant:?}");
        assert_eq!(session.push(&TypeUrl::Listener, all, "v3", NOW), None, "{variant:?}: once");
    }
}

#[test]
fn sessions_share_the_text_of_names() {
    let shared = resource("a", "1");
    let mut session = Session::new(Variant::Delta);
    synced(&mut session, &TypeUrl::Endpoint, &["a"], vec![shared.clone()]);
    let Some(Asked::Names(names)) = session.asked(&TypeUrl::Endpoint) else { panic!() };
    assert!(names.iter().all(|name| Arc::ptr_eq(name, &shared.name)));
}
