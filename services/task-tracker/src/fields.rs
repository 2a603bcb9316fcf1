//! Reads and checks what a client sent, one field at a time.
//!
//! The one rule: every wrong value is reported, each with its place, and nothing that passes can upset a database.

use std::borrow::Cow;

use serde_json::{Map, Value};

use crate::datetime;
use crate::refusal::{Problem, Refusal};

/// The fields of a JSON body, and the problems found in them so far.
pub struct Fields {
    values: Map<String, Value>,
    problems: Vec<Problem>,
}

/// A field of a partial update.
#[derive(Clone, Debug, PartialEq)]
pub enum Change<T> {
    /// It was not sent.
    Keep,
    /// It was sent as null.
    Clear,
    /// It was sent.
    Set(T),
}

impl<T> Change<T> {
    /// The new value, if there is one.
    pub fn value(&self) -> Option<&T> {
        match self {
            Self::Set(value) => Some(value),
            Self::Keep | Self::Clear => None,
        }
    }

    /// Whether anything changes.
    pub fn is_change(&self) -> bool {
        !matches!(self, Self::Keep)
    }
}

impl Fields {
    /// # Errors
    /// When the body is not a JSON object.
    pub fn of_body(body: &[u8]) -> Result<Self, Refusal> {
        match serde_json::from_slice(body) {
            Ok(Value::Object(values)) => Ok(Self { values, problems: Vec::new() }),
            Ok(_) => Err(Problem::of_body("dict_type", "must be a JSON object").into()),
            Err(error) => Err(Problem::of_body("json_invalid", format!("not JSON: {error}")).into()),
        }
    }

    /// A text that must be there, with its lengths in characters.
    pub fn text(&mut self, field: &'static str, shortest: usize, longest: usize) -> String {
        match self.values.remove(field) {
            None => {
                self.problem(field, "missing", "is required");
                String::new()
            }
            Some(value) => self.checked_text(field, value, shortest, longest).unwrap_or_default(),
        }
    }

    /// A text that may be left out or null.
    pub fn optional_text(&mut self, field: &'static str, longest: usize) -> Change<String> {
        match self.values.remove(field) {
            None => Change::Keep,
            Some(Value::Null) => Change::Clear,
            Some(value) => self.checked_text(field, value, 0, longest).map_or(Change::Keep, Change::Set),
        }
    }

    /// A text that may be left out but not be null.
    pub fn text_if_sent(&mut self, field: &'static str, shortest: usize, longest: usize) -> Option<String> {
        let value = self.values.remove(field)?;
        self.checked_text(field, value, shortest, longest)
    }

    /// One of a few words; may be left out.
    pub fn word(&mut self, field: &'static str, words: &[&'static str]) -> Option<&'static str> {
        let value = self.values.remove(field)?;
        let found = value.as_str().and_then(|value| words.iter().find(|word| **word == value));
        if found.is_none() {
            self.problem(field, "enum", format!("must be one of {}", words.join(", ")));
        }
        found.copied()
    }

    /// A date-time that may be left out or null.
    pub fn date_time(&mut self, field: &'static str) -> Change<String> {
        let value = match self.values.remove(field) {
            None => return Change::Keep,
            Some(Value::Null) => return Change::Clear,
            Some(value) => value,
        };
        match value.as_str().and_then(datetime::parse) {
            Some(instant) => Change::Set(instant),
            None => {
                self.problem(
                    field,
                    "datetime_parsing",
                    "must be a date-time such as 2026-01-02T03:04:05, with or without an offset",
                );
                Change::Keep
            }
        }
    }

    /// Reports a problem of a field.
    pub fn problem(&mut self, field: &'static str, kind: &'static str, msg: impl Into<Cow<'static, str>>) {
        self.problems.push(Problem::new("body", field, kind, msg));
    }

    /// # Errors
    /// When any field was wrong.
    pub fn done(self) -> Result<(), Refusal> {
        if self.problems.is_empty() { Ok(()) } else { Err(Refusal::Invalid(self.problems)) }
    }

    fn checked_text(&mut self, field: &'static str, value: Value, shortest: usize, longest: usize) -> Option<String> {
        let Value::String(text) = value else {
            self.problem(field, "string_type", "must be a string");
            return None;
        };
        match check_text(&text, shortest, longest) {
            Ok(()) => Some(text),
            Err((kind, msg)) => {
                self.problem(field, kind, msg);
                None
            }
        }
    }
}

fn check_text(text: &str, shortest: usize, longest: usize) -> Result<(), (&'static str, String)> {
    // Postgres stores no NUL; both databases refuse the same.
    if text.contains('\0') {
        return Err(("string_nul", "must not contain a NUL character".into()));
    }
    let length = text.chars().count();
    if length < shortest {
        return Err(("string_too_short", format!("must have at least {shortest} characters")));
    }
    if length > longest {
        return Err(("string_too_long", format!("must have at most {longest} characters")));
    }
    Ok(())
}

/// The last value of a query parameter, decoded.
pub fn query<'a>(text: &'a str, name: &str) -> Option<Cow<'a, str>> {
    if text.is_empty() {
        return None;
    }
    form_urlencoded::parse(text.as_bytes()).filter(|(key, _)| key == name).map(|(_, value)| value).last()
}

/// A whole number of a query within bounds.
///
/// # Errors
/// When it is no number or out of bounds.
pub fn query_number(text: &str, name: &'static str, default: i64, bounds: (i64, i64)) -> Result<i64, Problem> {
    let Some(value) = query(text, name) else { return Ok(default) };
    let number: i64 =
        value.parse().map_err(|_| Problem::new("query", name, "int_parsing", "must be a whole number of 64 bits"))?;
    if number < bounds.0 {
        return Err(Problem::new("query", name, "greater_than_equal", format!("must be at least {}", bounds.0)));
    }
    if number > bounds.1 {
        return Err(Problem::new("query", name, "less_than_equal", format!("must be at most {}", bounds.1)));
    }
    Ok(number)
}

/// One of a few words of a query.
///
/// # Errors
/// When it is another one.
pub fn query_word(text: &str, name: &'static str, words: &[&'static str]) -> Result<Option<&'static str>, Problem> {
    let Some(value) = query(text, name) else { return Ok(None) };
    match words.iter().find(|word| **word == value) {
        Some(word) => Ok(Some(word)),
        None => Err(Problem::new("query", name, "enum", format!("must be one of {}", words.join(", ")))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_wrong_field_is_named() {
        let body = br#"{"title": "", "note": 5, "status": "later", "due": "soon", "nul": "a\u0000b"}"#;
        let mut fields = Fields::of_body(body).unwrap();
        fields.text("title", 1, 255);
        fields.text("owner", 1, 255);
        fields.optional_text("note", 10);
        fields.word("status", &["todo", "done"]);
        fields.date_time("due");
        fields.text("nul", 0, 255);
        let Err(Refusal::Invalid(problems)) = fields.done() else { panic!("must be refused") };
        let named: Vec<_> = problems.iter().map(|problem| (&*problem.loc[1], problem.kind)).collect();
        assert_eq!(
            named,
            [
                ("title", "string_too_short"),
                ("owner", "missing"),
                ("note", "string_type"),
                ("status", "enum"),
                ("due", "datetime_parsing"),
                ("nul", "string_nul"),
            ]
        );
    }

    #[test]
    fn lengths_count_characters_not_bytes() {
        assert!(check_text(&"ß".repeat(255), 1, 255).is_ok());
        assert!(check_text(&"ß".repeat(256), 1, 255).is_err());
    }

    #[test]
    fn the_last_of_several_query_values_counts_and_bad_encoding_is_no_number() {
        for (text, expected) in [
            ("", Ok(7)),
            ("skip=3", Ok(3)),
            ("skip=3&skip=4", Ok(4)),
            ("other=1", Ok(7)),
            ("skip=%31", Ok(1)),
            ("skip=%zz", Err("int_parsing")),
            ("skip=", Err("int_parsing")),
            ("skip=-1", Err("greater_than_equal")),
            ("skip=101", Err("less_than_equal")),
            ("skip=99999999999999999999", Err("int_parsing")),
        ] {
            let found = query_number(text, "skip", 7, (0, 100)).map_err(|problem| problem.kind);
            assert_eq!(found, expected, "{text}");
        }
    }
}
