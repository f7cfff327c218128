//! The page on which a person asks and watches a thought.

/// The whole live page: one HTML document that needs nothing but the server which hands it out.
pub const PAGE: &str = include_str!("../assets/page.html");
