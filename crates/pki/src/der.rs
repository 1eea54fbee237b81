//! The ASN.1 that this crate writes: algorithm identifiers, extensions,
//! requests and certificates, in DER.
//!
//! Names and public keys of others are copied as bytes and never re-encoded:
//! an issuer's name must be, to the byte, the subject of its certificate.

use std::net::IpAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use time::OffsetDateTime;
use yasna::models::{GeneralizedTime, ObjectIdentifier, UTCTime};
use yasna::{DERWriter, DERWriterSeq, Tag};

pub(crate) const EC_PUBLIC_KEY: &[u64] = &[1, 2, 840, 10045, 2, 1];
pub(crate) const P256: &[u64] = &[1, 2, 840, 10045, 3, 1, 7];
pub(crate) const P384: &[u64] = &[1, 3, 132, 0, 34];
pub(crate) const ED25519: &[u64] = &[1, 3, 101, 112];
pub(crate) const RSA: &[u64] = &[1, 2, 840, 113_549, 1, 1, 1];
pub(crate) const ECDSA_SHA256: &[u64] = &[1, 2, 840, 10045, 4, 3, 2];
pub(crate) const ECDSA_SHA384: &[u64] = &[1, 2, 840, 10045, 4, 3, 3];
pub(crate) const RSA_SHA256: &[u64] = &[1, 2, 840, 113_549, 1, 1, 11];

const COMMON_NAME: &[u64] = &[2, 5, 4, 3];
const ORGANIZATION: &[u64] = &[2, 5, 4, 10];
const EXTENSION_REQUEST: &[u64] = &[1, 2, 840, 113_549, 1, 9, 14];
const SUBJECT_KEY_ID: &[u64] = &[2, 5, 29, 14];
const KEY_USAGE: &[u64] = &[2, 5, 29, 15];
const SUBJECT_ALT_NAME: &[u64] = &[2, 5, 29, 17];
const BASIC_CONSTRAINTS: &[u64] = &[2, 5, 29, 19];
const AUTHORITY_KEY_ID: &[u64] = &[2, 5, 29, 35];
const EXTENDED_KEY_USAGE: &[u64] = &[2, 5, 29, 37];
const SERVER_AUTH: &[u64] = &[1, 3, 6, 1, 5, 5, 7, 3, 1];
const CLIENT_AUTH: &[u64] = &[1, 3, 6, 1, 5, 5, 7, 3, 2];

/// An algorithm and what qualifies it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum AlgorithmId {
    /// No parameters.
    Bare(&'static [u64]),
    /// Parameters NULL, which RSA wants.
    Null(&'static [u64]),
    /// The named curve of an EC key.
    Curve(&'static [u64]),
}

impl AlgorithmId {
    fn write(self, writer: DERWriter) {
        writer.write_sequence(|w| match self {
            Self::Bare(id) => oid(w.next(), id),
            Self::Null(id) => {
                oid(w.next(), id);
                w.next().write_null();
            }
            Self::Curve(curve) => {
                oid(w.next(), EC_PUBLIC_KEY);
                oid(w.next(), curve);
            }
        });
    }
}

fn oid(writer: DERWriter, id: &[u64]) {
    writer.write_oid(&ObjectIdentifier::from_slice(id));
}

/// `SubjectPublicKeyInfo`.
pub(crate) fn public_key(algorithm: AlgorithmId, key: &[u8]) -> Vec<u8> {
    yasna::construct_der(|w| {
        w.write_sequence(|w| {
            algorithm.write(w.next());
            w.next().write_bitvec_bytes(key, key.len() * 8);
        });
    })
}

/// PKCS#8 around a key of another form.
pub(crate) fn pkcs8(algorithm: AlgorithmId, key: &[u8]) -> Vec<u8> {
    yasna::construct_der(|w| {
        w.write_sequence(|w| {
            w.next().write_u8(0);
            algorithm.write(w.next());
            w.next().write_bytes(key);
        });
    })
}

/// What [`pkcs8`] put in.
pub(crate) fn pkcs8_content(der: &[u8]) -> Option<Vec<u8>> {
    yasna::parse_der(der, |r| {
        r.read_sequence(|r| {
            r.next().read_u8()?;
            r.next().read_der()?;
            let content = r.next().read_bytes()?;
            // Attributes and, in version 2, the public key.
            while r.read_optional(|r| r.read_der())?.is_some() {}
            Ok(content)
        })
    })
    .ok()
}

/// The fields of an `ECPrivateKey` (SEC1).
pub(crate) struct EcKey {
    pub(crate) scalar: Vec<u8>,
    pub(crate) curve: Option<Vec<u64>>,
    pub(crate) public: Option<Vec<u8>>,
}

/// Reads an `ECPrivateKey`.
pub(crate) fn read_ec_key(der: &[u8]) -> Option<EcKey> {
    yasna::parse_der(der, |r| {
        r.read_sequence(|r| {
            r.next().read_u8()?;
            let scalar = r.next().read_bytes()?;
            let curve = r.read_optional(|r| r.read_tagged(Tag::context(0), |r| r.read_oid()))?;
            let public = r.read_optional(|r| r.read_tagged(Tag::context(1), |r| r.read_bitvec_bytes()))?;
            Ok(EcKey {
                scalar,
                curve: curve.map(|id| id.components().clone()),
                public: public.map(|(bytes, _)| bytes),
            })
        })
    })
    .ok()
}

/// Writes an `ECPrivateKey` with its curve and public key.
pub(crate) fn ec_key(scalar: &[u8], curve: &'static [u64], public: &[u8]) -> Vec<u8> {
    yasna::construct_der(|w| {
        w.write_sequence(|w| {
            w.next().write_u8(1);
            w.next().write_bytes(scalar);
            w.next().write_tagged(Tag::context(0), |w| oid(w, curve));
            w.next().write_tagged(Tag::context(1), |w| w.write_bitvec_bytes(public, public.len() * 8));
        });
    })
}

/// A subject alternative name as it is encoded.
#[derive(Clone, Debug)]
pub(crate) enum Name {
    Uri(String),
    Dns(String),
    Ip(IpAddr),
}

/// A name of one attribute, or of none.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Subject<'a> {
    Empty,
    CommonName(&'a str),
    Organization(&'a str),
}

impl Subject<'_> {
    pub(crate) fn encode(self) -> Vec<u8> {
        let attribute = match self {
            Self::Empty => None,
            Self::CommonName(value) => Some((COMMON_NAME, value)),
            Self::Organization(value) => Some((ORGANIZATION, value)),
        };
        yasna::construct_der(|w| {
            w.write_sequence(|w| {
                let Some((id, value)) = attribute else { return };
                w.next().write_set(|w| {
                    w.next().write_sequence(|w| {
                        oid(w.next(), id);
                        w.next().write_utf8_string(value);
                    });
                });
            });
        })
    }
}

/// `CertificationRequestInfo`: empty subject, one critical extension with the name.
pub(crate) fn request_info(public_key: &[u8], name: &Name) -> Vec<u8> {
    yasna::construct_der(|w| {
        w.write_sequence(|w| {
            w.next().write_u8(0);
            w.next().write_der(&Subject::Empty.encode());
            w.next().write_der(public_key);
            w.next().write_tagged_implicit(Tag::context(0), |w| {
                w.write_set(|w| {
                    w.next().write_sequence(|w| {
                        oid(w.next(), EXTENSION_REQUEST);
                        w.next().write_set(|w| {
                            w.next().write_sequence(|w| alt_names(w, std::slice::from_ref(name)));
                        });
                    });
                });
            });
        });
    })
}

/// What a certificate says; the signature comes later.
#[derive(Debug)]
pub(crate) struct Body<'a> {
    pub(crate) serial: [u8; 16],
    pub(crate) signature: AlgorithmId,
    /// Name of the signer, DER.
    pub(crate) issuer: &'a [u8],
    pub(crate) not_before: SystemTime,
    pub(crate) not_after: SystemTime,
    /// Name of the subject, DER.
    pub(crate) subject: &'a [u8],
    /// `SubjectPublicKeyInfo`, DER.
    pub(crate) public_key: &'a [u8],
    pub(crate) role: Role<'a>,
}

/// What a certificate is for.
#[derive(Debug)]
pub(crate) enum Role<'a> {
    /// A workload or server; the signer's key id, if it has one.
    Leaf { names: &'a [Name], authority: Option<&'a [u8]> },
    /// A root, with its key id.
    Root { key_id: &'a [u8] },
}

/// `TBSCertificate`; `None` when a time cannot be expressed.
pub(crate) fn certificate_body(body: &Body<'_>) -> Option<Vec<u8>> {
    let not_before = date(body.not_before)?;
    let not_after = date(body.not_after)?;
    Some(yasna::construct_der(|w| {
        w.write_sequence(|w| {
            w.next().write_tagged(Tag::context(0), |w| w.write_u8(2));
            w.next().write_bigint_bytes(&body.serial, true);
            body.signature.write(w.next());
            w.next().write_der(body.issuer);
            w.next().write_sequence(|w| {
                time_of(w.next(), not_before);
                time_of(w.next(), not_after);
            });
            w.next().write_der(body.subject);
            w.next().write_der(body.public_key);
            w.next().write_tagged(Tag::context(3), |w| w.write_sequence(|w| extensions(w, &body.role)));
        });
    }))
}

fn extensions(w: &mut DERWriterSeq<'_>, role: &Role<'_>) {
    match role {
        Role::Leaf { names, authority } => {
            // digitalSignature (bit 0) and keyEncipherment (bit 2).
            extension(w, KEY_USAGE, true, |w| w.write_bitvec_bytes(&[0b1010_0000], 3));
            extension(w, EXTENDED_KEY_USAGE, false, |w| {
                w.write_sequence(|w| {
                    oid(w.next(), SERVER_AUTH);
                    oid(w.next(), CLIENT_AUTH);
                });
            });
            // cA is FALSE by default, and DER leaves defaults out.
            extension(w, BASIC_CONSTRAINTS, true, |w| w.write_sequence(|_| ()));
            if let Some(authority) = authority {
                extension(w, AUTHORITY_KEY_ID, false, |w| {
                    w.write_sequence(|w| {
                        w.next().write_tagged_implicit(Tag::context(0), |w| w.write_bytes(authority));
                    });
                });
            }
            alt_names(w, names);
        }
        Role::Root { key_id } => {
            // keyCertSign (bit 5).
            extension(w, KEY_USAGE, true, |w| w.write_bitvec_bytes(&[0b0000_0100], 6));
            extension(w, BASIC_CONSTRAINTS, true, |w| w.write_sequence(|w| w.next().write_bool(true)));
            extension(w, SUBJECT_KEY_ID, false, |w| w.write_bytes(key_id));
        }
    }
}

fn alt_names(w: &mut DERWriterSeq<'_>, names: &[Name]) {
    extension(w, SUBJECT_ALT_NAME, true, |w| {
        w.write_sequence(|w| {
            for name in names {
                let tag = match name {
                    Name::Dns(_) => 2,
                    Name::Uri(_) => 6,
                    Name::Ip(_) => 7,
                };
                w.next().write_tagged_implicit(Tag::context(tag), |w| match name {
                    Name::Dns(text) | Name::Uri(text) => w.write_ia5_string(text),
                    Name::Ip(IpAddr::V4(ip)) => w.write_bytes(&ip.octets()),
                    Name::Ip(IpAddr::V6(ip)) => w.write_bytes(&ip.octets()),
                });
            }
        });
    });
}

fn extension(w: &mut DERWriterSeq<'_>, id: &[u64], critical: bool, content: impl FnOnce(DERWriter<'_>)) {
    w.next().write_sequence(|w| {
        oid(w.next(), id);
        if critical {
            w.next().write_bool(true);
        }
        w.next().write_bytes(&yasna::construct_der(content));
    });
}

/// A body (request or certificate) with its signature.
pub(crate) fn signed(body: &[u8], algorithm: AlgorithmId, signature: &[u8]) -> Vec<u8> {
    yasna::construct_der(|w| {
        w.write_sequence(|w| {
            w.next().write_der(body);
            algorithm.write(w.next());
            w.next().write_bitvec_bytes(signature, signature.len() * 8);
        });
    })
}

fn date(time: SystemTime) -> Option<OffsetDateTime> {
    let seconds = i64::try_from(time.duration_since(UNIX_EPOCH).ok()?.as_secs()).ok()?;
    OffsetDateTime::from_unix_timestamp(seconds).ok().filter(|date| date.year() <= 9999)
}

/// UTCTime up to 2049, as X.509 wants it, GeneralizedTime after.
fn time_of(writer: DERWriter, date: OffsetDateTime) {
    match UTCTime::from_datetime_opt(date) {
        Some(time) if date.year() < 2050 => writer.write_utctime(&time),
        _ => writer.write_generalized_time(&GeneralizedTime::from_datetime(date)),
    }
}
