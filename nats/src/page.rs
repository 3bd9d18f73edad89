//! Lists: a page of items and the cursor of the next.

use serde::{Deserialize, Serialize};

/// Items of a page when the caller does not say.
pub const DEFAULT_LIMIT: u32 = 50;
/// Items of a page at most.
pub const MAX_LIMIT: u32 = 200;

/// One page of a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page<T> {
    /// The items, in the order of the list.
    pub items: Vec<T>,
    /// Hand this back as `cursor` for the next page; `null` at the end.
    pub next_cursor: Option<String>,
}

/// Schema of a page, one per type of item. By hand, as the derive wants bounds on the type itself.
#[cfg(feature = "openapi")]
mod schema {
    use std::borrow::Cow;

    use poem_openapi::{
        registry::{MetaSchema, MetaSchemaRef, Registry},
        types::Type,
    };

    use super::Page;

    impl<T: Type> Type for Page<T> {
        const IS_REQUIRED: bool = true;
        type RawValueType = Self;
        type RawElementValueType = Self;

        fn name() -> Cow<'static, str> {
            format!("{}Page", T::name()).into()
        }

        fn schema_ref() -> MetaSchemaRef {
            MetaSchemaRef::Reference(Self::name().into_owned())
        }

        fn register(registry: &mut Registry) {
            registry.create_schema::<Self, _>(Self::name().into_owned(), |registry| {
                T::register(registry);
                let next_cursor = String::schema_ref().merge(MetaSchema {
                    nullable: true,
                    description: Some("Hand this back as `cursor` for the next page; `null` at the end."),
                    ..MetaSchema::ANY
                });
                MetaSchema {
                    description: Some("One page of a list."),
                    required: vec!["items", "next_cursor"],
                    properties: vec![("items", Vec::<T>::schema_ref()), ("next_cursor", next_cursor)],
                    ..MetaSchema::new("object")
                }
            });
        }

        fn as_raw_value(&self) -> Option<&Self> {
            Some(self)
        }

        fn raw_element_iter<'a>(&'a self) -> Box<dyn Iterator<Item = &'a Self> + 'a> {
            Box::new(std::iter::once(self))
        }
    }
}
