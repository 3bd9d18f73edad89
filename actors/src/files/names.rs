//! Names that are free: `report (2).pdf` beside `report.pdf`.

/// Longest name, in bytes.
const MAX_BYTES: usize = 255;

/// The name with a number before its extension, cut where it would be too long. `report.pdf`, 2: `report (2).pdf`.
pub(crate) fn numbered(name: &str, number: u32) -> String {
    let (stem, extension) = split(name);
    // A number that is there already is counted on from, not added to.
    let stem = unnumbered(stem);
    let suffix = format!(" ({number})");
    let room = MAX_BYTES.saturating_sub(suffix.len() + extension.len());
    let end = (0..=stem.len().min(room)).rev().find(|end| stem.is_char_boundary(*end)).unwrap_or(0);
    format!("{}{suffix}{extension}", stem[..end].trim_end())
}

/// Stem and extension; of `a.tar.gz` that is `.tar.gz`. A name that begins with a dot has none for that.
fn split(name: &str) -> (&str, &str) {
    let at = |text: &str| text.rfind('.').filter(|at| *at > 0 && text.len() - at <= 16);
    let Some(last) = at(name) else { return (name, "") };
    match at(&name[..last]) {
        Some(before) if name[before..last].eq_ignore_ascii_case(".tar") => name.split_at(before),
        _ => name.split_at(last),
    }
}

fn unnumbered(stem: &str) -> &str {
    let inner = stem.strip_suffix(')').and_then(|rest| rest.rsplit_once(" ("));
    match inner {
        Some((before, digits))
            if !before.is_empty() && (1..=3).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit()) =>
        {
            before
        }
        _ => stem,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_goes_before_the_extension_and_the_name_stays_short_enough() {
        for (name, expected) in [
            ("report.pdf", "report (2).pdf"),
            ("report (2).pdf", "report (2).pdf"),
            ("a.tar.gz", "a (2).tar.gz"),
            (".profile", ".profile (2)"),
            ("README", "README (2)"),
            ("v1.2 the whole long story", "v1.2 the whole long story (2)"),
            ("film (1999).mkv", "film (1999) (2).mkv"),
            ("(5)", "(5) (2)"),
        ] {
            assert_eq!(numbered(name, 2), expected);
        }
        let long = format!("{}.bin", "ü".repeat(125));
        let named = numbered(&long, 1000);
        assert!(named.len() <= 255 && named.ends_with(" (1000).bin"), "{named}");
    }
}
