//! Looks at a few places of a JSON text without building the rest of it.
//!
//! The one rule: the whole text is read, so a broken one is noticed, but only what was asked for is kept.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// The places, as a tree of the parts of their pointers.
#[derive(Debug, Default)]
pub struct Probe {
    root: Node,
    slots: usize,
}

#[derive(Debug, Default)]
struct Node {
    slot: Option<usize>,
    children: Vec<(String, Node)>,
}

/// What is at a place.
#[derive(Clone, Debug, PartialEq)]
pub enum Found {
    /// null
    Null,
    /// true or false
    Bool(bool),
    /// A whole number.
    Integer(i128),
    /// Another number.
    Float(f64),
    /// A text.
    String(String),
    /// An array; its elements are not kept.
    Array,
    /// An object; its members are not kept.
    Object,
}

impl Found {
    /// Whether it is of a type by name.
    pub fn is(&self, name: &str) -> bool {
        match self {
            Self::Null => name == "null",
            Self::Bool(_) => name == "boolean",
            Self::Integer(_) => matches!(name, "integer" | "number"),
            Self::Float(_) => name == "number",
            Self::String(_) => name == "string",
            Self::Array => name == "array",
            Self::Object => name == "object",
        }
    }

    /// Whether it is this scalar.
    pub fn equals(&self, value: &serde_json::Value) -> bool {
        use serde_json::Value;
        match (self, value) {
            (Self::Null, Value::Null) => true,
            (Self::Bool(a), Value::Bool(b)) => a == b,
            (Self::String(a), Value::String(b)) => a == b,
            (Self::Integer(a), Value::Number(b)) => b.as_i128() == Some(*a),
            (Self::Float(a), Value::Number(b)) => b.as_f64() == Some(*a),
            _ => false,
        }
    }

    /// As it would stand in a path; none for what has no such form.
    pub fn into_text(self) -> Option<String> {
        match self {
            Self::String(text) => Some(text),
            Self::Integer(number) => Some(number.to_string()),
            Self::Float(number) => Some(number.to_string()),
            Self::Bool(value) => Some(value.to_string()),
            Self::Null | Self::Array | Self::Object => None,
        }
    }
}

impl Probe {
    /// Adds a place by its JSON pointer (RFC 6901); says in which slot what is found there will be.
    ///
    /// # Errors
    /// When it is not a pointer.
    pub fn add(&mut self, pointer: &str) -> Result<usize, String> {
        if !pointer.is_empty() && !pointer.starts_with('/') {
            return Err(format!("{pointer:?} is not a JSON pointer; begin it with /"));
        }
        let mut node = &mut self.root;
        for part in pointer.split('/').skip(1) {
            let key = part.replace("~1", "/").replace("~0", "~");
            let at = node.children.iter().position(|(child, _)| *child == key).unwrap_or_else(|| {
                node.children.push((key, Node::default()));
                node.children.len() - 1
            });
            node = &mut node.children[at].1;
        }
        let slots = &mut self.slots;
        Ok(*node.slot.get_or_insert_with(|| {
            *slots += 1;
            *slots - 1
        }))
    }

    /// Whether there is nothing to look at.
    pub fn is_empty(&self) -> bool {
        self.slots == 0
    }

    /// What is at each place, by slot.
    ///
    /// # Errors
    /// When the text is not JSON.
    pub fn look(&self, text: &[u8]) -> Result<Vec<Option<Found>>, serde_json::Error> {
        let mut found = vec![None; self.slots];
        let mut json = serde_json::Deserializer::from_slice(text);
        Look { node: &self.root, found: &mut found }.deserialize(&mut json)?;
        json.end()?;
        Ok(found)
    }
}

struct Look<'a> {
    node: &'a Node,
    found: &'a mut Vec<Option<Found>>,
}

impl Look<'_> {
    fn put(self, value: Found) {
        if let Some(slot) = self.node.slot {
            self.found[slot] = Some(value);
        }
    }
}

impl<'de> DeserializeSeed<'de> for Look<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Look<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        self.put(Found::Null);
        Ok(())
    }

    fn visit_bool<E>(self, value: bool) -> Result<(), E> {
        self.put(Found::Bool(value));
        Ok(())
    }

    fn visit_i64<E>(self, value: i64) -> Result<(), E> {
        self.put(Found::Integer(value.into()));
        Ok(())
    }

    fn visit_u64<E>(self, value: u64) -> Result<(), E> {
        self.put(Found::Integer(value.into()));
        Ok(())
    }

    fn visit_f64<E>(self, value: f64) -> Result<(), E> {
        self.put(Found::Float(value));
        Ok(())
    }

    fn visit_str<E>(self, value: &str) -> Result<(), E> {
        self.put(Found::String(value.to_owned()));
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        let Self { node, found } = self;
        let mut last =
            node.children.iter().filter_map(|(key, _)| key.parse::<usize>().ok()).max().map_or(0, |at| at + 1);
        let mut at = 0;
        while at < last {
            let child = node.children.iter().find(|(key, _)| key.parse() == Ok(at));
            let more = match child {
                Some((_, node)) => elements.next_element_seed(Look { node, found: &mut *found })?.is_some(),
                None => elements.next_element::<IgnoredAny>()?.is_some(),
            };
            at += 1;
            if !more {
                last = 0;
            }
        }
        while elements.next_element::<IgnoredAny>()?.is_some() {}
        Look { node, found }.put(Found::Array);
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        let Self { node, found } = self;
        while let Some(key) = members.next_key::<Key<'de>>()? {
            match node.children.iter().find(|(child, _)| *child == key.0) {
                Some((_, node)) => members.next_value_seed(Look { node, found: &mut *found })?,
                None => {
                    members.next_value::<IgnoredAny>()?;
                }
            }
        }
        Look { node, found }.put(Found::Object);
        Ok(())
    }
}

/// A member's name, borrowed where it has no escapes.
#[derive(serde::Deserialize)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_found_by_its_pointer() {
        let text = br#"{"a": {"b/c": [10, {"d": "x"}, 2.5]}, "n": null, "t": true, "e\n": "\u0041"}"#;
        for (pointer, expect) in [
            ("", Some(Found::Object)),
            ("/a/b~1c", Some(Found::Array)),
            ("/a/b~1c/0", Some(Found::Integer(10))),
            ("/a/b~1c/1/d", Some(Found::String("x".into()))),
            ("/a/b~1c/2", Some(Found::Float(2.5))),
            ("/a/b~1c/3", None),
            ("/n", Some(Found::Null)),
            ("/t", Some(Found::Bool(true))),
            ("/e\n", Some(Found::String("A".into()))),
            ("/none/at/all", None),
        ] {
            let mut probe = Probe::default();
            let slot = probe.add(pointer).unwrap();
            assert_eq!(probe.look(text).unwrap()[slot], expect, "{pointer}");
        }
    }

    #[test]
    fn many_places_are_found_in_one_reading_and_the_same_place_once() {
        let mut probe = Probe::default();
        let slots: Vec<usize> = ["/a", "/b/0", "/a"].iter().map(|pointer| probe.add(pointer).unwrap()).collect();
        assert_eq!(slots, [0, 1, 0]);
        let found = probe.look(br#"{"a": 1, "b": [2, 3]}"#).unwrap();
        assert_eq!(found, [Some(Found::Integer(1)), Some(Found::Integer(2))]);
    }

    #[test]
    fn what_is_not_json_is_noticed_wherever_it_breaks() {
        let mut probe = Probe::default();
        probe.add("/a").unwrap();
        for text in ["", "{", r#"{"a": 1, "b": }"#, r#"{"a": 1} x"#, "<html>"] {
            assert!(probe.look(text.as_bytes()).is_err(), "{text}");
        }
        assert!(probe.add("a").unwrap_err().contains("begin it with /"));
    }
}
