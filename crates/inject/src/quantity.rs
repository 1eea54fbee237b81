//! Amounts of CPU and memory (`100m`, `1Gi`) in Kubernetes' one spelling.

/// Digits that can be computed with; longer ones keep their spelling.
const DIGITS: usize = 18;
const DECIMAL: [(&str, i32); 10] =
    [("n", -9), ("u", -6), ("m", -3), ("", 0), ("k", 3), ("M", 6), ("G", 9), ("T", 12), ("P", 15), ("E", 18)];
const BINARY: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    Decimal(i32),
    Binary(usize),
    Exponent(i32),
}

#[derive(Debug)]
struct Parsed<'a> {
    is_negative: bool,
    whole: &'a str,
    fraction: &'a str,
    unit: Unit,
}

fn parse(text: &str) -> Option<Parsed<'_>> {
    let (is_negative, rest) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
    let (whole, rest) = rest.split_at(digits(rest));
    let (fraction, rest) = match rest.strip_prefix('.') {
        Some(rest) => rest.split_at(digits(rest)),
        None => ("", rest),
    };
    let unit = if let Some((_, exponent)) = DECIMAL.iter().find(|(name, _)| *name == rest) {
        Unit::Decimal(*exponent)
    } else if let Some(power) = BINARY.iter().position(|name| *name == rest) {
        Unit::Binary(power)
    } else {
        let exponent = rest.strip_prefix(['e', 'E'])?;
        Unit::Exponent(exponent.parse().ok()?)
    };
    (!whole.is_empty() || !fraction.is_empty()).then_some(Parsed { is_negative, whole, fraction, unit })
}

/// Whether the text is an amount.
pub(crate) fn is_valid(text: &str) -> bool {
    parse(text).is_some()
}

/// The one spelling of an amount; what is none, or too exact, stays as it is.
pub(crate) fn canonical(text: &str) -> String {
    parse(text).and_then(|parsed| spell(&parsed)).unwrap_or_else(|| text.to_owned())
}

fn spell(parsed: &Parsed<'_>) -> Option<String> {
    let digits = format!("{}{}", parsed.whole, parsed.fraction);
    let digits = digits.trim_start_matches('0');
    if digits.len() > DIGITS {
        return None;
    }
    let mantissa: i128 = if digits.is_empty() { 0 } else { digits.parse().ok()? };
    let scale = i32::try_from(parsed.fraction.len()).ok()?;
    let sign = if parsed.is_negative && mantissa != 0 { "-" } else { "" };
    let (exponent, factor) = match parsed.unit {
        Unit::Decimal(exponent) | Unit::Exponent(exponent) => (exponent, 1),
        Unit::Binary(power) => (0, 1_i128 << (10 * u32::try_from(power).ok()?)),
    };
    // In billionths, the smallest part that Kubernetes keeps, rounded up.
    let tens = 9 + exponent.clamp(-40, 40) - scale;
    let exact = mantissa.checked_mul(factor)?;
    let mut nano = match u32::try_from(tens) {
        Ok(up) => exact.checked_mul(10_i128.checked_pow(up)?)?,
        Err(_) => {
            let divisor = 10_i128.checked_pow(tens.unsigned_abs())?;
            exact.checked_add(divisor - 1)? / divisor
        }
    };
    const ONE: i128 = 1_000_000_000;
    if matches!(parsed.unit, Unit::Binary(power) if power > 0) && nano % ONE == 0 && nano >= 1024 * ONE {
        let mut value = nano / ONE;
        let mut power = 0;
        while value % 1024 == 0 && power + 1 < BINARY.len() {
            value /= 1024;
            power += 1;
        }
        return Some(format!("{sign}{value}{}", BINARY[power]));
    }
    if nano == 0 {
        return Some("0".into());
    }
    let mut at = 0;
    while nano % 1000 == 0 && at + 1 < DECIMAL.len() {
        nano /= 1000;
        at += 1;
    }
    let (name, exponent) = DECIMAL[at];
    match parsed.unit {
        Unit::Exponent(_) if exponent != 0 => Some(format!("{sign}{nano}e{exponent}")),
        _ => Some(format!("{sign}{nano}{name}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spells_amounts_as_kubernetes_does() {
        for (text, want) in [
            ("2000m", "2"),
            ("100m", "100m"),
            ("0.1", "100m"),
            ("1.5", "1500m"),
            ("1024Mi", "1Gi"),
            ("128Mi", "128Mi"),
            ("1.5Gi", "1536Mi"),
            ("0.5Ki", "512"),
            ("1000k", "1M"),
            ("0", "0"),
            ("00", "0"),
            ("0.0m", "0"),
            ("1e3", "1e3"),
            ("1000e3", "1e6"),
            ("-1500m", "-1500m"),
            ("+5", "5"),
            ("1.0000000001", "1000000001n"),
            ("E", "E"),
            ("lots", "lots"),
        ] {
            assert_eq!(canonical(text), want, "{text}");
        }
    }

    #[test]
    fn tells_amounts_from_other_words() {
        for text in ["1", "1.", ".5", "10Gi", "1e3", "1E-2", "5E", "-3m"] {
            assert!(is_valid(text), "{text}");
        }
        for text in ["", "lots", "1 Gi", "1gi", "1KB", "--1", "1e", "m", "1\nx", "."] {
            assert!(!is_valid(text), "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn one_spelling_is_its_own(text in "[0-9]{0,20}(\\.[0-9]{0,12})?(|m|Ki|Mi|G|e[0-9]{1,3}|n|E)") {
            let once = canonical(&text);
            proptest::prop_assert_eq!(canonical(&once), once);
        }

        #[test]
        fn no_text_ends_the_program(text in "(?s).*") {
            drop((is_valid(&text), canonical(&text)));
        }
    }
}
