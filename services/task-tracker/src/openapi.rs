//! The OpenAPI document, made from the table of operations.
//!
//! The one rule: it promises exactly what the handlers keep. Lengths and words come from the constants they check.

use serde_json::{Map, Value, json};

use crate::operations::{Operation, Part};
use crate::tasks::{LONGEST_DESCRIPTION, LONGEST_KEY, LONGEST_TITLE, PRIORITIES, STATUSES};

/// The document of a role with these operations. A gateway adds what it answers in a service's place.
pub fn document(operations: &[&Operation], gateway: bool) -> Vec<u8> {
    let mut paths = Map::new();
    for operation in operations {
        let path = paths.entry(operation.path).or_insert_with(|| json!({}));
        path[operation.method.as_str().to_ascii_lowercase()] = describe(operation, gateway);
    }
    let document = json!({
        "openapi": "3.1.0",
        "info": { "title": "Task tracker", "version": env!("CARGO_PKG_VERSION") },
        "paths": paths,
        "components": {
            "securitySchemes": { "token": { "type": "http", "scheme": "bearer", "bearerFormat": "JWT" } },
            "parameters": parameters(),
            "schemas": schemas(),
        },
    });
    document.to_string().into_bytes()
}

fn describe(operation: &Operation, gateway: bool) -> Value {
    let mut responses = Map::new();
    let (status, schema) = operation.answer;
    responses.insert(status.to_string(), answer(operation, schema));
    // It reads every body, wanted or not, before it sends it on.
    let of_gateway: &[u16] = if gateway && operation.part != Part::Every { &[413, 422, 502] } else { &[] };
    for status in operation.refusals().into_iter().chain(of_gateway.iter().copied()) {
        responses.insert(status.to_string(), refusal(status));
    }
    let mut described = json!({ "operationId": operation.id, "responses": responses });
    if operation.token {
        described["security"] = json!([{ "token": [] }]);
    }
    if let Some(schema) = operation.body {
        described["requestBody"] = json!({ "required": true, "content": content(schema) });
    }
    if !operation.parameters.is_empty() {
        let named =
            operation.parameters.iter().map(|name| json!({ "$ref": format!("#/components/parameters/{name}") }));
        described["parameters"] = named.collect();
    }
    described
}

fn answer(operation: &Operation, schema: Option<&str>) -> Value {
    let mut answer = json!({ "description": "Done" });
    if let Some(schema) = schema {
        answer["content"] = content(schema);
        if schema == "Task" {
            answer["headers"] = json!({ "ETag": { "required": true, "schema": { "type": "string" } } });
        }
    }
    if operation.part == Part::Every {
        answer["description"] = json!("The role's own answer");
    }
    answer
}

fn refusal(status: u16) -> Value {
    let (description, schema) = match status {
        400 => ("The e-mail or the username is taken", "Detail"),
        401 => ("No token, or not a good one, or a wrong password", "Detail"),
        404 => ("No such task of yours", "Detail"),
        412 => ("The task has another version than If-Match asks for", "Detail"),
        413 => ("The body is too long", "Detail"),
        422 => ("A value is wrong; the answer names it", "Problems"),
        502 => ("Something needed broke off before it had answered; what was asked may have been done", "Detail"),
        503 => ("Not now: too much under way (then with x-shed), or something needed cannot be had", "Detail"),
        _ => ("The deadline has passed", "Detail"),
    };
    let mut refusal = json!({ "description": description, "content": content(schema) });
    if status == 401 {
        refusal["headers"] = json!({ "WWW-Authenticate": { "required": true, "schema": { "type": "string" } } });
    }
    refusal
}

fn content(schema: &str) -> Value {
    json!({ "application/json": { "schema": { "$ref": format!("#/components/schemas/{schema}") } } })
}

fn parameters() -> Value {
    let number = |least: i64, most: i64, default: i64| json!({ "type": "integer", "format": "int64", "minimum": least, "maximum": most, "default": default });
    let query = |name: &str, schema: Value| json!({ "name": name, "in": "query", "schema": schema });
    let header = |name: &str, schema: Value| json!({ "name": name, "in": "header", "schema": schema });
    json!({
        "skip": query("skip", number(0, i64::MAX, 0)),
        "limit": query("limit", number(1, 1000, 100)),
        "status": query("status", json!({ "type": "string", "enum": STATUSES })),
        "priority": query("priority", json!({ "type": "string", "enum": PRIORITIES })),
        "task_id": {
            "name": "task_id", "in": "path", "required": true, "schema": { "type": "integer", "format": "int64" },
        },
        "idempotency_key": header("Idempotency-Key", json!({
            "type": "string", "minLength": 1, "maxLength": LONGEST_KEY, "pattern": "^[!-~]+$",
        })),
        "if_match": header("If-Match", json!({ "type": "string" })),
    })
}

fn schemas() -> Value {
    json!({
        "Registration": object(&["email", "username", "password"], json!({
            "email": { "type": "string", "maxLength": 254, "pattern": r"^[^@\s\x00-\x1f\x7f-\x9f]+@[^@\s\x00-\x1f\x7f-\x9f]+$" },
            "username": text(1, 64),
            "password": text(1, 128),
            "full_name": optional_text(255),
        })),
        "Credentials": object(&["username", "password"], json!({ "username": text(1, 64), "password": text(1, 128) })),
        "NewTask": object(&["title"], json!({
            "title": text(1, LONGEST_TITLE),
            "description": optional_text(LONGEST_DESCRIPTION),
            "status": { "type": "string", "enum": STATUSES, "default": "todo" },
            "priority": { "type": "string", "enum": PRIORITIES, "default": "medium" },
            "due_date": accepted_date_time(),
        })),
        "TaskChange": object(&[], json!({
            "title": text(1, LONGEST_TITLE),
            "description": optional_text(LONGEST_DESCRIPTION),
            "status": { "type": "string", "enum": STATUSES },
            "priority": { "type": "string", "enum": PRIORITIES },
            "due_date": accepted_date_time(),
        })),
        "User": answered(json!({
            "id": { "type": "integer" },
            "email": { "type": "string" },
            "username": { "type": "string" },
            "full_name": { "type": ["string", "null"] },
            "is_active": { "type": "boolean" },
            "is_superuser": { "type": "boolean" },
            "created_at": instant(),
            "updated_at": instant(),
        })),
        "Token": answered(json!({ "access_token": { "type": "string" }, "token_type": { "const": "bearer" } })),
        "Task": answered(json!({
            "id": { "type": "integer" },
            "title": { "type": "string", "minLength": 1, "maxLength": LONGEST_TITLE },
            "description": { "type": ["string", "null"] },
            "status": { "type": "string", "enum": STATUSES },
            "priority": { "type": "string", "enum": PRIORITIES },
            "is_completed": { "type": "boolean" },
            "due_date": { "type": ["string", "null"], "format": "date-time" },
            "owner_id": { "type": "integer" },
            "version": { "type": "integer", "minimum": 1 },
            "created_at": instant(),
            "updated_at": instant(),
        })),
        "Page": answered(json!({
            "tasks": { "type": "array", "items": { "$ref": "#/components/schemas/Task" } },
            "total": count(),
            "skip": count(),
            "limit": count(),
        })),
        "TaskCounts": answered(json!({
            "total": count(), "completed": count(),
            "todo": count(), "in_progress": count(), "done": count(),
            "low": count(), "medium": count(), "high": count(),
        })),
        "Stats": answered(json!({
            "total_tasks": count(),
            "completed_tasks": count(),
            "completed_percentage": { "type": "number", "minimum": 0, "maximum": 100 },
        })),
        "Health": answered(json!({ "status": { "type": "string" } })),
        "Document": { "type": "object" },
        "Detail": answered(json!({ "detail": { "type": "string" } })),
        "Problems": answered(json!({ "detail": { "type": "array", "minItems": 1, "items": answered(json!({
            "loc": { "type": "array", "items": { "type": "string" } },
            "msg": { "type": "string" },
            "type": { "type": "string" },
        })) } })),
    })
}

fn object(required: &[&str], properties: Value) -> Value {
    json!({ "type": "object", "required": required, "properties": properties })
}

/// What we answer has every field, always, and no other.
fn answered(properties: Value) -> Value {
    let names: Vec<&String> = properties.as_object().into_iter().flat_map(Map::keys).collect();
    json!({ "type": "object", "required": names, "properties": properties, "additionalProperties": false })
}

/// Any text without NUL.
fn text(shortest: usize, longest: usize) -> Value {
    json!({ "type": "string", "minLength": shortest, "maxLength": longest, "pattern": r"^[^\x00]*$" })
}

fn optional_text(longest: usize) -> Value {
    json!({ "type": ["string", "null"], "maxLength": longest, "pattern": r"^[^\x00]*$" })
}

fn instant() -> Value {
    json!({ "type": "string", "format": "date-time" })
}

fn count() -> Value {
    json!({ "type": "integer", "minimum": 0 })
}

/// With an offset, or naive: then it is UTC.
fn accepted_date_time() -> Value {
    let naive = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}([T ][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,9})?)?)?$";
    json!({
        "description": "RFC 3339, or without an offset: then it is taken as UTC",
        "anyOf": [
            { "type": "string", "format": "date-time" },
            { "type": "string", "pattern": naive, "examples": ["2026-01-02T03:04:05.123456"] },
            { "type": "null" },
        ],
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operations::OPERATIONS;

    #[test]
    fn every_operation_is_described_and_every_reference_leads_somewhere() {
        let all: Vec<_> = OPERATIONS.iter().collect();
        let document: Value = serde_json::from_slice(&document(&all, true)).unwrap();
        for operation in OPERATIONS {
            let described = &document["paths"][operation.path][operation.method.as_str().to_ascii_lowercase()];
            assert_eq!(described["operationId"], operation.id);
        }
        let text = document.to_string();
        for reference in text.split("\"$ref\":\"#").skip(1).filter_map(|rest| rest.split('"').next()) {
            assert!(document.pointer(reference).is_some(), "{reference} leads nowhere");
        }
    }
}
