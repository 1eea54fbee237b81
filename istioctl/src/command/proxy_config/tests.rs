use super::*;

#[test]
fn names_of_clusters_have_parts() {
    let key = |host: &str, subset: &str, port, direction: &str| Key {
        host: host.into(),
        subset: subset.into(),
        port,
        direction: direction.into(),
    };
    assert_eq!(Key::parse("outbound|80|v1|a.b"), key("a.b", "v1", 80, "outbound"));
    assert_eq!(Key::parse("outbound_.80_._.a.b"), key("a.b", "", 80, "outbound"));
    assert_eq!(Key::parse("inbound|80||"), key("", "", 80, "inbound"));
    assert_eq!(Key::parse("a|b|c|d|e"), key("", "c", 0, "a"));
    assert_eq!(Key::order("agent"), key("agent", "", 0, ""));
    assert!(is_key("inbound|80||") && !is_key("a|b|c"));
}

#[test]
fn a_short_list_is_sorted_as_go_does() {
    let number = |text: &&str| text.parse::<u32>().ok();
    let sort = |mut items: Vec<&'static str>| {
        sort_as_go(
            &mut items,
            |one, other| number(one).is_some_and(|one| number(other).is_some_and(|other| one < other)),
            |item| number(item).unwrap_or(u32::MAX),
        );
        items
    };
    assert_eq!(sort(vec!["9080", "80", "x", "70", "60"]), ["80", "9080", "x", "60", "70"]);
    let long: Vec<&str> = vec!["x", "9", "8", "7", "6", "5", "4", "3", "2", "1", "y", "0", "z"];
    assert_eq!(sort(long)[..3], ["0", "1", "2"]);
}

#[test]
fn other_formats_are_refused() {
    assert_eq!(Format::parse("wide").unwrap_err().to_string(), "output format \"wide\" not supported");
}
