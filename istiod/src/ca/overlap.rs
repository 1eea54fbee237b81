//! One authority takes the place of another without a failed request: which
//! roots are trusted, and which key signs, step by step.
//!
//! A member of the mesh refuses certificates of a root that it has not heard
//! of. So a new root is published first, and signs only once all had the time
//! to hear of it. An old one stays as long as certificates that were signed
//! under it.

use std::time::{Duration, SystemTime};

use pki::certificate::{self, Certificate};

/// How long a new root is published before anything is signed under it.
pub const PUBLISH_FIRST: Duration = Duration::from_secs(5);

/// A root that is trusted though the files have it no more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// The certificate, PEM.
    pub root: String,
    /// Until when.
    pub until: SystemTime,
}

/// What to do when the files have changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing that matters is different.
    Nothing,
    /// Sign with the new key at once: everybody trusts its root already.
    Sign {
        /// The roots that are trusted from now on, PEM.
        roots: String,
        /// Those among them that the files do not have.
        kept: Vec<Kept>,
    },
    /// Publish these roots, go on signing with the old key for
    /// [`PUBLISH_FIRST`], then look again.
    Publish {
        /// The roots that are trusted from now on, PEM.
        roots: String,
    },
}

/// The side that signs: its certificate and its roots, PEM.
#[derive(Clone, Copy, Debug)]
pub struct Side<'a> {
    /// The signing certificate, DER.
    pub signer: &'a [u8],
    /// Roots of its own.
    pub roots: &'a str,
}

/// What to do when `new` shall take the place of `old`.
///
/// `trusted` are the roots that are published now, `kept` those of them that are
/// of no file any more, `last_expiry` when the last certificate of `old` ends.
///
/// # Errors
/// When roots cannot be read.
pub fn step(
    old: Side<'_>,
    new: Side<'_>,
    trusted: &str,
    kept: &[Kept],
    last_expiry: SystemTime,
    now: SystemTime,
) -> Result<Step, certificate::Error> {
    let published = Certificate::all_from_pem(trusted)?;
    let wanted = Certificate::all_from_pem(new.roots)?;
    if wanted.iter().any(|root| !published.contains(root)) {
        return Ok(Step::Publish { roots: union(trusted, new.roots) });
    }
    let mut kept: Vec<Kept> = kept.iter().filter(|kept| kept.until > now).cloned().collect();
    let is_new_signer = old.signer != new.signer;
    if is_new_signer && last_expiry > now {
        // Its certificates are out there. One whose owner leaves it out while nothing
        // else changes wants it gone: then it is.
        for root in certificate::blocks(old.roots) {
            kept.retain(|kept| kept.root != root);
            kept.push(Kept { root, until: last_expiry });
        }
    }
    let own = certificate::blocks(new.roots);
    kept.retain(|kept| !own.contains(&kept.root));
    let mut roots = certificate::join_pem(&[new.roots]);
    for kept in &kept {
        roots.push_str(&kept.root);
    }
    if !is_new_signer && certificate::blocks(&roots) == certificate::blocks(trusted) {
        return Ok(Step::Nothing);
    }
    Ok(Step::Sign { roots, kept })
}

/// All certificates of both, each once.
fn union(first: &str, second: &str) -> String {
    let mut all = certificate::blocks(first);
    for root in certificate::blocks(second) {
        if !all.contains(&root) {
            all.push(root);
        }
    }
    all.concat()
}

#[cfg(test)]
mod tests {
    use pki::issuer::Issuer;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn root(name: &str) -> String {
        Issuer::self_signed(name, 24 * HOUR, SystemTime::now()).unwrap().0.root_pem().to_owned()
    }

    fn side<'a>(signer: &'a str, roots: &'a str) -> Side<'a> {
        Side { signer: signer.as_bytes(), roots }
    }

    #[test]
    fn a_root_that_nobody_knows_is_published_before_it_signs() {
        let (a, b) = (root("a"), root("b"));
        let now = SystemTime::now();
        let first = step(side("A", &a), side("B", &b), &a, &[], now + HOUR, now).unwrap();
        let Step::Publish { roots } = first else { panic!("{first:?}") };
        assert_eq!(certificate::blocks(&roots), [a.clone(), b.clone()]);
        let second = step(side("A", &a), side("B", &b), &roots, &[], now + HOUR, now).unwrap();
        let Step::Sign { roots, kept } = second else { panic!("{second:?}") };
        assert_eq!(certificate::blocks(&roots), [b.clone(), a.clone()]);
        assert_eq!(kept, [Kept { root: a, until: now + HOUR }]);
        // And is forgotten when the last certificate under it has ended.
        let later = now + 2 * HOUR;
        let third = step(side("B", &b), side("B", &b), &roots, &kept, now + HOUR, later).unwrap();
        assert_eq!(third, Step::Sign { roots: b, kept: Vec::new() });
    }

    #[test]
    fn three_steps_by_hand_are_taken_as_they_come() {
        let (a, b) = (root("a"), root("b"));
        let both = format!("{a}{b}");
        let now = SystemTime::now();
        let expiry = now + HOUR;
        let published = step(side("A", &a), side("A", &both), &a, &[], expiry, now).unwrap();
        assert_eq!(published, Step::Publish { roots: both.clone() });
        let nothing = step(side("A", &both), side("A", &both), &both, &[], expiry, now).unwrap();
        assert_eq!(nothing, Step::Nothing);
        let signs = step(side("A", &both), side("B", &both), &both, &[], expiry, now).unwrap();
        assert_eq!(signs, Step::Sign { roots: both.clone(), kept: Vec::new() });
        let dropped = step(side("B", &both), side("B", &b), &both, &[], expiry, now).unwrap();
        assert_eq!(dropped, Step::Sign { roots: b, kept: Vec::new() }, "who takes it out wants it gone");
    }

    #[test]
    fn nothing_is_kept_for_certificates_that_nobody_has() {
        let (a, b) = (root("a"), root("b"));
        let now = SystemTime::now();
        let both = format!("{a}{b}");
        let signs = step(side("A", &a), side("B", &b), &both, &[], now - HOUR, now).unwrap();
        assert_eq!(signs, Step::Sign { roots: b, kept: Vec::new() });
    }
}
