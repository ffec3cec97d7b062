//! How bad a failure is, from the words and numbers of scanners. docs/formats.md has the same table for people.
//!
//! | severity | words (in any case) | CVSS 3 and 4 base score | InSpec impact | SARIF level |
//! |---|---|---|---|---|
//! | critical | critical, emergency, alert, blocker | 9.0 and above | 0.9 and above | |
//! | high | high, important, error, severe | 7.0 to 8.9 | 0.7 to 0.89 | error |
//! | medium | medium, moderate, warning, warn; unknown, unrated, anything else, nothing | 4.0 to 6.9 | 0.4 to 0.69 | warning |
//! | low | low, minor, negligible, note, notice | 0.1 to 3.9 | 0.1 to 0.39 | note |
//! | none | none, info, informational, debug | 0.0 | below 0.1 | none |
//!
//! What is not rated counts as medium, so that it neither hides nor alarms.

use crate::model::control::Severity;

/// The severity of a word, and whether it is a rating at all.
pub(crate) fn rated(word: &str) -> Option<Severity> {
    Some(match word.trim().to_ascii_lowercase().as_str() {
        "critical" | "emergency" | "alert" | "blocker" => Severity::Critical,
        "high" | "important" | "error" | "severe" => Severity::High,
        "medium" | "moderate" | "warning" | "warn" => Severity::Medium,
        "low" | "minor" | "negligible" | "note" | "notice" => Severity::Low,
        "none" | "info" | "informational" | "debug" => Severity::None,
        _ => return None,
    })
}

/// The severity of a word.
pub(crate) fn of_word(word: &str) -> Severity {
    rated(word).unwrap_or(Severity::Medium)
}

/// The qualitative rating of a CVSS base score (CVSS 3.1 and 4.0, section "Qualitative Severity Rating Scale").
pub(crate) fn of_cvss(score: f64) -> Severity {
    match score {
        s if s >= 9.0 => Severity::Critical,
        s if s >= 7.0 => Severity::High,
        s if s >= 4.0 => Severity::Medium,
        s if s > 0.0 => Severity::Low,
        _ => Severity::None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_scores_fall_into_the_table() {
        for (word, expected) in [
            ("CRITICAL", Severity::Critical),
            ("Important", Severity::High),
            ("moderate", Severity::Medium),
            ("Negligible", Severity::Low),
            ("Informational", Severity::None),
            ("Terrible", Severity::Medium),
            ("", Severity::Medium),
        ] {
            assert_eq!(of_word(word), expected, "{word}");
        }
        assert_eq!(rated("UNKNOWN"), None);
        let scores = [10.0, 9.0, 8.9, 7.0, 6.9, 4.0, 3.9, 0.1, 0.0].map(of_cvss);
        use Severity::{Critical, High, Low, Medium};
        assert_eq!(scores, [Critical, Critical, High, High, Medium, Medium, Low, Low, Severity::None]);
    }
}
