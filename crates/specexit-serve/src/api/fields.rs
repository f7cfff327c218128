//! Reading a JSON object field by field, so that nothing in it is ignored.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::error::{ApiError, Result};

/// The fields of an object that have not been read yet.
pub(crate) struct Fields {
    fields: Map<String, Value>,
}

impl Fields {
    /// Of a whole body.
    pub(crate) fn parse(body: &[u8]) -> Result<Self> {
        match serde_json::from_slice(body) {
            Ok(Value::Object(fields)) => Ok(Self { fields }),
            Ok(_) => Err(ApiError::new(
                axum::http::StatusCode::BAD_REQUEST,
                "the body is JSON, but no object; send the fields of a request",
            )),
            Err(error) => Err(ApiError::new(
                axum::http::StatusCode::BAD_REQUEST,
                format!("the body is not JSON: {error}"),
            )),
        }
    }

    /// Of an object inside another.
    pub(crate) fn inner(name: &str, value: Value) -> Result<Self> {
        match value {
            Value::Object(fields) => Ok(Self { fields }),
            other => Err(ApiError::field(name, format!("{name} is {other}; it must be an object"))),
        }
    }

    /// A field of type `T`; null is as good as absent.
    pub(crate) fn take<T: DeserializeOwned>(&mut self, name: &str) -> Result<Option<T>> {
        match self.fields.shift_remove(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => serde_json::from_value(value)
                .map(Some)
                .map_err(|error| ApiError::field(name, format!("{name} cannot be read: {error}"))),
        }
    }

    /// Takes a field if its value is the one that `is` knows; whether it was.
    pub(crate) fn take_if(&mut self, name: &str, is: impl Fn(&Value) -> bool) -> bool {
        let found = self.fields.get(name).is_some_and(is);
        if found {
            self.fields.shift_remove(name);
        }
        found
    }

    /// A field that there must be.
    pub(crate) fn need<T: DeserializeOwned>(&mut self, name: &str) -> Result<T> {
        let missing = || ApiError::field(name, format!("{name} is missing"));
        self.take(name)?.ok_or_else(missing)
    }

    /// A field of OpenAI's that this server does not have: fine with a value that changes nothing.
    pub(crate) fn neutral(&mut self, name: &str, harmless: &[Value]) -> Result<()> {
        match self.take::<Value>(name)? {
            None => Ok(()),
            Some(value) if harmless.contains(&value) => Ok(()),
            Some(value) => Err(ApiError::field(
                name,
                format!(
                    "{name} is not supported by this server, and {value} would change the answer"
                ),
            )
            .with_code("unsupported_parameter")),
        }
    }

    /// Nothing may be left.
    pub(crate) fn finish(self) -> Result<()> {
        match self.fields.keys().next() {
            None => Ok(()),
            Some(name) => Err(ApiError::field(
                name,
                format!("{name} is no field that this server knows; nothing is ignored silently, so leave it out"),
            )
            .with_code("unknown_parameter")),
        }
    }
}
