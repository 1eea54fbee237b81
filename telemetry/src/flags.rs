//! Envoy's response flags as the short words of `%RESPONSE_FLAGS%`.

/// By bit.
const NAMES: [&str; 30] = [
    "LH", "UH", "UT", "LR", "UR", "UF", "UC", "UO", "NR", "DI", "FI", "RL", "UAEX", "RLSE", "DC", "URX",
    "SI", "IH", "DPE", "UMSDR", "RFCF", "NFCF", "DT", "UPE", "NC", "OM", "DF", "DO", "DR", "UDO",
];

/// Words joined by commas; `-` where no flag is set.
#[must_use]
pub fn text(flags: u64) -> String {
    let set = NAMES.iter().enumerate().filter(|(bit, _)| flags & (1 << bit) != 0).map(|(_, name)| *name);
    let text = set.collect::<Vec<_>>().join(",");
    if text.is_empty() { "-".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::text;

    #[test]
    fn flags_are_words_in_order() {
        assert_eq!(text(0), "-");
        assert_eq!(text(1 << 8), "NR");
        assert_eq!(text(1 << 5 | 1 << 15), "UF,URX");
        assert_eq!(text(1 << 63), "-", "a flag that is not known is no word");
    }
}
