//! Summary + SLO → verdict. Pure.

use serde::{Deserialize, Serialize};

/// One objective, as written: `p95 <= 250ms`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Slo {
    /// As written.
    pub text: String,
}

impl TryFrom<String> for Slo {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        Ok(Self { text })
    }
}

impl From<Slo> for String {
    fn from(slo: Slo) -> Self {
        slo.text
    }
}
