//! Which passwords are accepted: any characters, long enough, and not one that is tried first.
//!
//! No rules about kinds of characters (NIST SP 800-63B): length and the lists are what counts.

use std::{collections::HashSet, sync::LazyLock};

/// Longest password, in bytes: more says nothing and costs.
const MAX_BYTES: usize = 1024;
/// Characters that have to be left when everything is taken away that others would guess.
const OWN_CHARACTERS: usize = 8;

/// Often used passwords and words that passwords are made of, in lower case.
static COMMON: LazyLock<HashSet<&'static str>> =
    LazyLock::new(|| include_str!("common_passwords.txt").lines().map(str::trim).filter(|line| !line.is_empty()).collect());

/// What is wrong with this password, if anything. `context` is what others know: account name, e-mail address.
pub(super) fn fault(password: &str, min_characters: usize, context: &[&str]) -> Option<String> {
    if password.len() > MAX_BYTES {
        return Some(format!("must be at most {MAX_BYTES} bytes"));
    }
    if password.contains('\0') {
        return Some("must not contain NUL".into());
    }
    if password.chars().count() < min_characters {
        return Some(format!("must be at least {min_characters} characters; a few words do well"));
    }
    let folded = password.to_lowercase();
    if is_common(&folded) || is_pattern(&folded) {
        return Some("is one of those that are tried first; choose another".into());
    }
    // The longest first, or a part of it would be taken out of its middle.
    let mut known: Vec<String> =
        context.iter().flat_map(|known| [*known, known.split('@').next().unwrap_or("")]).map(str::to_lowercase).collect();
    known.push("bowerbird".to_owned());
    known.sort_by_key(|known| std::cmp::Reverse(known.len()));
    let own = known.iter().filter(|known| known.chars().count() >= 3).fold(folded, |own, known| own.replace(known, ""));
    (own.chars().count() < OWN_CHARACTERS.min(min_characters))
        .then(|| "is mostly made of the name or the address; choose another".into())
}

/// In the list, as it is, with digits or signs around it, or repeated.
fn is_common(folded: &str) -> bool {
    let core = folded.trim_matches(|c: char| !c.is_alphabetic());
    COMMON.contains(folded)
        || COMMON.contains(core)
        || unit_of(folded).is_some_and(|unit| COMMON.contains(unit) || unit.chars().count() <= 4)
}

/// The shortest text that repeated makes this one, if it is not itself; a cut last repetition counts.
fn unit_of(text: &str) -> Option<&str> {
    text.char_indices()
        .map(|(at, _)| at)
        .skip(1)
        .take_while(|at| at * 2 <= text.len())
        .map(|at| &text[..at])
        .find(|unit| text.as_bytes().chunks(unit.len()).all(|piece| unit.as_bytes().starts_with(piece)))
}

/// One run along the alphabet, the digits or a row of the keyboard, in either direction, however often it starts again.
fn is_pattern(folded: &str) -> bool {
    const RUNS: [&str; 5] = ["abcdefghijklmnopqrstuvwxyz", "01234567890", "qwertyuiop", "asdfghjkl", "zxcvbnm"];
    let characters: Vec<char> = folded.chars().collect();
    let follows = |pair: &[char]| {
        let (forward, backward) = (pair.iter().collect::<String>(), pair.iter().rev().collect::<String>());
        RUNS.iter().any(|run| run.contains(&forward) || run.contains(&backward)) || pair[0] == pair[1]
    };
    let steps = characters.windows(2).filter(|pair| follows(pair)).count();
    // Three in four neighbours are neighbours there too.
    characters.len() > 1 && steps * 4 >= (characters.len() - 1) * 3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_words_are_accepted_whatever_they_are_made_of() {
        for good in [
            "correct horse battery staple",
            "пароль из четырёх слов",
            "🦜 sits on the blue bower",
            "Tr0ub4dor&3-and-more",
            "    leading spaces count",
        ] {
            assert_eq!(fault(good, 15, &["alice", "alice@example.org"]), None, "{good}");
        }
    }

    #[test]
    fn what_is_tried_first_is_refused() {
        for bad in [
            "short",
            "aaaaaaaaaaaaaaaaaaaa",
            "123456789012345",
            "passwordpassword",
            "Password123456789",
            "abcdefghijklmnop",
            "qwertyuiopasdfghjkl",
            "987654321098765",
            "abcabcabcabcabcab",
            "iloveyouiloveyou",
        ] {
            assert!(fault(bad, 15, &[]).is_some(), "{bad}");
        }
        for bad in ["password", "12345678", "iloveyou", "letmein1", "qwerty123"] {
            assert!(fault(bad, 8, &[]).is_some(), "{bad}");
        }
    }

    #[test]
    fn the_name_and_the_address_do_not_count() {
        assert!(fault("alice-alice-alice", 15, &["Alice"]).is_some());
        assert!(fault("bob.builder2026", 15, &["bob", "bob.builder@example.org"]).is_some());
        assert!(fault("bowerbirdbowerbird!", 15, &[]).is_some());
    }

    #[test]
    fn length_is_counted_in_characters_and_bounded_in_bytes() {
        assert!(fault("äöüäöüß", 8, &[]).is_some());
        assert_eq!(fault(&"correct horse ".repeat(73), 15, &[]), None);
        assert!(fault(&"correct horse ".repeat(74), 15, &[]).is_some());
        assert!(fault("nul\0in the middle of it", 15, &[]).is_some());
    }
}
