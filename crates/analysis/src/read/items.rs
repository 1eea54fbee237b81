//! A YAML list cut into its items, which are read one after the other: read as a
//! whole, a list takes many times the memory of its text.

use std::ops::Range;

/// A document without its items, and the text of each.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Cut {
    /// The document with an empty list.
    pub(super) head: String,
    pub(super) items: Vec<Item>,
}

/// A list of one item.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Item {
    /// Where it is in the document.
    pub(super) range: Range<usize>,
    /// Lines of the document before it.
    pub(super) before: usize,
}

/// Cuts a document at `items`, if that is written as `kubectl get -o yaml` writes it. What
/// else it says is not known here: whoever cannot read a part reads the whole.
pub(super) fn cut(text: &str) -> Option<Cut> {
    let mut items: Vec<Item> = Vec::new();
    // Where `items` stands, and what follows its list.
    let (mut start, mut end) = (None, None);
    let (mut indent, mut offset) = (0, 0);
    for (number, line) in text.split_inclusive('\n').enumerate() {
        let at = offset;
        offset += line.len();
        let content = line.trim_end();
        if start.is_none() {
            if content == "items:" {
                start = Some(at);
            }
            continue;
        }
        let inner = content.trim_start_matches(' ');
        if inner.is_empty() || inner.starts_with('#') {
            continue;
        }
        let depth = content.len() - inner.len();
        let begins = inner == "-" || inner.starts_with("- ");
        if items.is_empty() {
            indent = depth;
            if !begins {
                return None;
            }
        }
        if depth < indent || depth == indent && !begins {
            end = Some(at);
            break;
        }
        if depth == indent {
            items.push(Item { range: at..text.len(), before: number });
        }
    }
    let (start, end) = (start?, end.unwrap_or(text.len()));
    let ends: Vec<usize> = items.iter().skip(1).map(|item| item.range.start).chain([end]).collect();
    for (item, end) in items.iter_mut().zip(ends) {
        item.range.end = end;
    }
    let head = format!("{}items: []\n{}", text.get(..start)?, text.get(end..)?);
    (!items.is_empty()).then_some(Cut { head, items })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(text: &str) -> Option<(String, Vec<(&str, usize)>)> {
        let Cut { head, items } = cut(text)?;
        Some((head, items.into_iter().map(|item| (&text[item.range], item.before)).collect()))
    }

    #[test]
    fn a_list_is_cut_where_its_items_begin() {
        let text =
            "apiVersion: v1\nitems:\n# Two\n- a: |\n    - b\n\n    # c\n  d:\n  - e\n-\n  f: 1\nkind: List\n";
        let (head, items) = texts(text).unwrap();
        assert_eq!(head, "apiVersion: v1\nitems: []\nkind: List\n");
        assert_eq!(items, [("- a: |\n    - b\n\n    # c\n  d:\n  - e\n", 3), ("-\n  f: 1\n", 9)]);
        let (head, items) = texts("kind: List\nitems:\n  - a: 1\n  - b: 2\n  # End\n...").unwrap();
        assert_eq!(head, "kind: List\nitems: []\n...");
        assert_eq!(items, [("  - a: 1\n", 2), ("  - b: 2\n  # End\n", 3)]);
    }

    #[test]
    fn other_documents_are_not_cut() {
        for text in ["", "items:", "items: []", "items:\n  a: 1\n", "a:\n  items:\n  - b\n", "items:\n--- a"]
        {
            assert_eq!(cut(text), None, "{text:?}");
        }
    }
}
