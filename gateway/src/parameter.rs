//! What a parameter must be, in words, read off its own description.

use poem_openapi::registry::{MetaSchema, MetaSchemaRef, Registry};

/// The words for a number, a choice, a yes or no, or a time: `must be a whole number from 1 to 200`. `None` for a text, of which
/// its own type says more.
pub(crate) fn form(schema: &MetaSchemaRef, registry: &Registry) -> Option<String> {
    match schema {
        MetaSchemaRef::Reference(name) => form_of(registry.schemas.get(name)?, registry),
        MetaSchemaRef::Inline(schema) => form_of(schema, registry),
    }
}

fn form_of(schema: &MetaSchema, registry: &Registry) -> Option<String> {
    if !schema.enum_items.is_empty() {
        let items: Vec<String> =
            schema.enum_items.iter().map(|item| item.as_str().map_or_else(|| item.to_string(), str::to_owned)).collect();
        return Some(format!("must be one of {}", items.join(", ")));
    }
    match schema.ty {
        "integer" => Some(match (schema.minimum, schema.maximum) {
            (Some(least), Some(most)) => format!("must be a whole number from {least} to {most}"),
            (Some(least), None) => format!("must be a whole number, at least {least}"),
            (None, Some(most)) => format!("must be a whole number, at most {most}"),
            (None, None) => "must be a whole number".to_owned(),
        }),
        "boolean" => Some("must be true or false".to_owned()),
        "string" if schema.format == Some("date") => Some("must be a day such as 2026-11-20".to_owned()),
        "string" if schema.format == Some("date-time") => Some("must be a time such as 2026-11-20T07:00:00Z".to_owned()),
        _ => schema.all_of.iter().find_map(|part| form(part, registry)),
    }
}
