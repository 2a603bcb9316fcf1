//! Whether an answer is one that the OpenAPI document of its role promises: its status, its headers and its body.

use std::str::FromStr as _;

use serde_json::Value;
use task_tracker::operations::{Found, OPERATIONS, find};

use crate::client::Answer;

/// Fails unless `document` promises this answer. What no operation answers is not in it.
pub fn is_promised(document: &Value, method: &str, target: &str, answer: &Answer) {
    let all: Vec<_> = OPERATIONS.iter().collect();
    let path = target.split('?').next().unwrap_or_default();
    let Found::Operation(operation, _) = find(&all, &axum::http::Method::from_str(method).unwrap(), path) else {
        return;
    };
    let responses = &document["paths"][operation.path][method.to_ascii_lowercase()]["responses"];
    let promised = &responses[answer.status.to_string()];
    let place = format!("{method} {target}, {} of {}", answer.status, operation.id);
    assert!(promised.is_object(), "{place}: the document has no such answer\n{}", answer.body);
    for (name, header) in promised["headers"].as_object().into_iter().flatten() {
        let is_there = !answer.header(&name.to_lowercase()).is_empty();
        assert!(is_there || header["required"] != true, "{place}: the header {name} is missing");
    }
    match promised.pointer("/content/application~1json/schema") {
        Some(schema) => {
            assert_eq!(answer.header("content-type"), "application/json", "{place}");
            fits(document, schema, &answer.body)
                .unwrap_or_else(|why| panic!("{place}: {why}\n{:.2000}", answer.body.to_string()));
        }
        None => assert!(answer.body.is_null(), "{place}: a body that nobody promised"),
    }
}

/// Whether a value fits a schema, as far as the schemas of answers go; a keyword that is not known here is an error.
fn fits(document: &Value, schema: &Value, value: &Value) -> Result<(), String> {
    let wrong = |why: String| Err(format!("{why}: {value:.200}"));
    for (keyword, rule) in schema.as_object().ok_or("a schema that is no object")? {
        let number = || rule.as_f64().unwrap_or(f64::NAN);
        let length = || value.as_str().map_or(0, |text| text.chars().count()) as f64;
        let is_met = match keyword.as_str() {
            "$ref" => {
                let named = rule.as_str().and_then(|name| document.pointer(name.trim_start_matches('#')));
                return fits(document, named.ok_or_else(|| format!("{rule} leads nowhere"))?, value);
            }
            "type" => match rule.as_array() {
                Some(kinds) => kinds.iter().any(|kind| is_a(value, kind)),
                None => is_a(value, rule),
            },
            "const" => value == rule,
            "enum" => rule.as_array().is_some_and(|values| values.contains(value)),
            "required" => {
                let has = |name: &Value| value.get(name.as_str().unwrap_or_default()).is_some();
                rule.as_array().into_iter().flatten().all(has)
            }
            "properties" => {
                for (name, schema) in rule.as_object().into_iter().flatten() {
                    let field = value.get(name).map_or(Ok(()), |field| fits(document, schema, field));
                    field.map_err(|why| format!("{name}: {why}"))?;
                }
                true
            }
            "additionalProperties" => {
                let known = |name: &String| schema["properties"].get(name).is_some();
                *rule == Value::Bool(true) || value.as_object().is_none_or(|fields| fields.keys().all(known))
            }
            "items" => {
                value.as_array().into_iter().flatten().try_for_each(|item| fits(document, rule, item))?;
                true
            }
            "minItems" => value.as_array().is_none_or(|items| items.len() as f64 >= number()),
            "minimum" => value.as_f64().is_none_or(|value| value >= number()),
            "maximum" => value.as_f64().is_none_or(|value| value <= number()),
            "minLength" => !value.is_string() || length() >= number(),
            "maxLength" => !value.is_string() || length() <= number(),
            // The one format is that of instants, which the suite compares to the letter.
            "format" => rule == "date-time",
            other => return Err(format!("this test does not know the keyword {other}")),
        };
        if !is_met {
            return wrong(format!("{keyword} {rule} is not met"));
        }
    }
    Ok(())
}

fn is_a(value: &Value, kind: &Value) -> bool {
    match kind.as_str().unwrap_or_default() {
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        "null" => value.is_null(),
        _ => false,
    }
}
