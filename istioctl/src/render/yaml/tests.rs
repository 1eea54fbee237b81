use super::*;

fn yaml(json: &str) -> String {
    render(&serde_json::from_str(json).unwrap())
}

#[test]
fn names_are_sorted_and_lists_not_indented() {
    let text = yaml(r#"{"b": [{"d": 1, "c": [1, [2, {"x": 1}]]}, "s"], "a10": {}, "a9": [], "@type": null}"#);
    let wanted = "'@type': null\na9: []\na10: {}\nb:\n- c:\n  - 1\n  - - 2\n    - x: 1\n  d: 1\n- s\n";
    assert_eq!(text, wanted);
}

#[test]
fn text_is_quoted_where_it_would_be_something_else() {
    let cases = [
        ("plain text", "plain text"),
        ("1605", "\"1605\""),
        ("0.250s", "0.250s"),
        ("true", "\"true\""),
        ("y", "\"y\""),
        ("", "\"\""),
        ("2022-12-08T11:03:53.361Z", "\"2022-12-08T11:03:53.361Z\""),
        ("2022-12-08T09:07:09Z/10", "2022-12-08T09:07:09Z/10"),
        ("2026-02-30", "2026-02-30"),
        ("0x1f", "\"0x1f\""),
        ("089", "\"089\""),
        ("1e5", "\"1e5\""),
        (".5", "\".5\""),
        ("1.2.3", "1.2.3"),
        ("190:20:30", "\"190:20:30\""),
        ("10.0.0.1:80", "10.0.0.1:80"),
        ("*", "'*'"),
        ("a: b", "'a: b'"),
        ("a #b", "'a #b'"),
        ("it's", "it's"),
        ("'it's", "'''it''s'"),
        (" a", "' a'"),
        ("-", "'-'"),
        ("-a", "-a"),
        ("a\tb", "\"a\\tb\""),
        ("<<", "\"<<\""),
        ("{}", "'{}'"),
    ];
    for (text, wanted) in cases {
        let value = Value::String(text.into());
        assert_eq!(render(&value), format!("{wanted}\n"), "{text:?}");
    }
}

#[test]
fn lines_become_a_block() {
    assert_eq!(yaml(r#"{"a": {"k": "one\n  two\n"}, "b": 1}"#), "a:\n  k: |\n    one\n      two\nb: 1\n");
    assert_eq!(yaml(r#"{"a": "one\ntwo"}"#), "a: |-\n  one\n  two\n");
    assert_eq!(yaml(r#"{"a": "one\n\n"}"#), "a: |+\n  one\n\n");
    assert_eq!(yaml(r#"{"a": "one \ntwo"}"#), "a: \"one \\ntwo\"\n");
}

#[test]
fn long_text_is_folded_at_a_blank() {
    let words = ["word"; 30].join(" ");
    let text = yaml(&format!("{{\"a\": {{\"key\": {words:?}}}}}"));
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 3, "{text}");
    assert!(lines[1].len() > WIDTH && lines[2].starts_with("    word"), "{text}");
    assert_eq!(text.split_whitespace().filter(|word| *word == "word").count(), 30);
}

#[test]
fn numbers_are_as_go_writes_them() {
    assert_eq!(
        yaml("[1.5, 1e30, 0.00001, -3, 1e5, 1e6, 1000000]"),
        "- 1.5\n- 1e+30\n- 1e-05\n- -3\n- 100000\n- 1e+06\n- 1000000\n"
    );
}
