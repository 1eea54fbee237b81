//! Truth, where some things cannot be known.

use std::ops::Not;

/// Whether something is so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tri {
    Yes,
    No,
    Unknown,
}

impl Tri {
    /// Whether all are so.
    pub(super) fn all(of: impl IntoIterator<Item = Self>) -> Self {
        let mut all = Self::Yes;
        for one in of {
            match one {
                Self::No => return Self::No,
                Self::Unknown => all = Self::Unknown,
                Self::Yes => {}
            }
        }
        all
    }

    /// Whether one is so.
    pub(super) fn any(of: impl IntoIterator<Item = Self>) -> Self {
        !Self::all(of.into_iter().map(Not::not))
    }
}

impl From<bool> for Tri {
    fn from(is: bool) -> Self {
        if is { Self::Yes } else { Self::No }
    }
}

impl Not for Tri {
    type Output = Self;

    fn not(self) -> Self {
        match self {
            Self::Yes => Self::No,
            Self::No => Self::Yes,
            Self::Unknown => Self::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Tri::{No, Unknown, Yes};
    use super::*;

    #[test]
    fn what_is_not_known_counts_only_where_it_decides() {
        assert_eq!(Tri::all([Yes, Unknown, No]), No);
        assert_eq!(Tri::all([Yes, Unknown]), Unknown);
        assert_eq!(Tri::any([No, Unknown, Yes]), Yes);
        assert_eq!(Tri::any([No, Unknown]), Unknown);
        assert_eq!((Tri::all([]), Tri::any([])), (Yes, No));
    }
}
