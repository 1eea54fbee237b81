//! `/debug/cachez`: what was translated and is kept.

use std::collections::BTreeSet;

use http::StatusCode;
use serde_json::{Map, Value};

use super::{Page, parameter};
use crate::world::World;

/// The page.
pub(super) fn page(world: &World, query: &str) -> Page {
    let is_set = |name: &str| parameter(query, name).is_some_and(|value| !value.is_empty());
    if is_set("clear") {
        world.cache.clear();
        return Page::text(StatusCode::OK, "Cache cleared\n");
    }
    let contents = world.cache.contents();
    if !is_set("sizes") {
        let page = contents.into_iter().map(|(type_url, resources)| {
            let names: BTreeSet<&str> = resources.iter().map(|resource| &*resource.name).collect();
            (type_url.as_str().to_owned(), names.into_iter().map(Value::from).collect())
        });
        return Page::Json(page.collect::<Map<_, _>>().into());
    }
    let mut page = Map::new();
    let mut total = 0;
    for (type_url, resources) in contents {
        let size: usize = resources.iter().map(|resource| resource.body.len()).sum();
        total += size;
        page.insert(type_url.as_str().into(), bytes(size).into());
    }
    page.insert("total".into(), bytes(total).into());
    Page::Json(page.into())
}

/// A size as Istio writes it: `12B`, `1.5kB`.
fn bytes(size: usize) -> String {
    const UNIT: f64 = 1000.0;
    if size < 1000 {
        return format!("{size}B");
    }
    let mut value = size as f64 / UNIT;
    let mut units = "kMGTPE".chars();
    let mut unit = units.next().unwrap_or_default();
    for larger in units {
        if value < UNIT {
            break;
        }
        value /= UNIT;
        unit = larger;
    }
    format!("{value:.1}{unit}B")
}

#[cfg(test)]
mod tests {
    use super::bytes;

    #[test]
    fn sizes_have_a_unit() {
        for (size, text) in
            [(0, "0B"), (999, "999B"), (1000, "1.0kB"), (1_550_000, "1.6MB"), (2_000_000_000, "2.0GB")]
        {
            assert_eq!(bytes(size), text);
        }
    }
}
