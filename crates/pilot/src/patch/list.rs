//! Changes of lists: where a patch puts what it brings.

use proto::istio::networking::v1alpha3::envoy_filter::patch::Operation;

/// Changes a list. `fits` tells the items that the patch names; `None` when it
/// names none. `end` is the place behind the last item that may have others
/// behind it.
pub(super) fn edit<T>(
    list: &mut Vec<T>,
    operation: Operation,
    fits: Option<&dyn Fn(&T) -> bool>,
    end: usize,
    value: impl FnOnce() -> Option<T>,
) {
    let first = || list.iter().position(|item| fits.is_some_and(|fits| fits(item)));
    let place = match operation {
        Operation::Add => Some(end),
        Operation::InsertFirst => Some(0),
        Operation::InsertAfter if fits.is_none() => Some(end),
        Operation::InsertBefore if fits.is_none() => Some(0),
        Operation::InsertAfter => first().map(|place| (place + 1).min(end)),
        Operation::InsertBefore => first(),
        Operation::Replace => {
            if let (Some(place), Some(value)) = (first(), value()) {
                list[place] = value;
            }
            return;
        }
        Operation::Remove => {
            if let Some(fits) = fits {
                list.retain(|item| !fits(item));
            }
            return;
        }
        Operation::Invalid | Operation::Merge | Operation::MergeAndReplaceList => return,
    };
    if let (Some(place), Some(value)) = (place, value()) {
        list.insert(place.min(list.len()), value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(operation: Operation, named: Option<char>, end: usize) -> String {
        let mut list = vec!['a', 'b', 'z'];
        let fits = move |item: &char| Some(*item) == named;
        let fits: Option<&dyn Fn(&char) -> bool> = if named.is_some() { Some(&fits) } else { None };
        edit(&mut list, operation, fits, end, || Some('n'));
        list.into_iter().collect()
    }

    #[test]
    fn every_operation_has_its_place() {
        use Operation::{Add, InsertAfter, InsertBefore, InsertFirst, Remove, Replace};
        for (operation, named, want) in [
            (Add, None, "abzn"),
            (InsertFirst, None, "nabz"),
            (InsertAfter, None, "abzn"),
            (InsertAfter, Some('a'), "anbz"),
            (InsertAfter, Some('x'), "abz"),
            (InsertBefore, None, "nabz"),
            (InsertBefore, Some('b'), "anbz"),
            (Replace, Some('b'), "anz"),
            (Replace, None, "abz"),
            (Remove, Some('b'), "az"),
            (Remove, None, "abz"),
        ] {
            assert_eq!(after(operation, named, 3), want, "{operation:?} {named:?}");
        }
        // Nothing may stand behind the last one.
        assert_eq!(after(Add, None, 2), "abnz");
        assert_eq!(after(InsertAfter, Some('z'), 2), "abnz");
    }
}
