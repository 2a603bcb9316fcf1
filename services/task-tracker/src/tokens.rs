//! Bearer tokens: JWT with HS256, good for as long as the settings say.
//!
//! The one rule: a token is checked with the key and the clock alone. No assembly asks a database who the caller is,
//! so both do the same work for a request.

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use kit::Clock;
use serde::{Deserialize, Serialize};

/// Issues and checks tokens.
pub struct Tokens {
    clock: Clock,
    good_for_s: u64,
    encoding: EncodingKey,
    decoding: DecodingKey,
    validation: Validation,
}

#[derive(Serialize, Deserialize)]
struct Claims {
    /// The user's id, as text: the standard wants a string.
    sub: String,
    iat: u64,
    exp: u64,
}

impl Tokens {
    /// With the key that all roles of a run share; `minutes` is how long a token is good for.
    pub fn new(key: &str, clock: Clock, minutes: u32) -> Self {
        let mut validation = Validation::new(Algorithm::HS256);
        // The library would read the machine's clock; `user` compares with the clock it was handed.
        validation.validate_exp = false;
        Self {
            clock,
            good_for_s: 60 * u64::from(minutes),
            encoding: EncodingKey::from_secret(key.as_bytes()),
            decoding: DecodingKey::from_secret(key.as_bytes()),
            validation,
        }
    }

    /// A token for a user.
    ///
    /// # Errors
    /// When it cannot be signed.
    pub fn issue(&self, user: i64) -> anyhow::Result<String> {
        let iat = self.now_s();
        let claims = Claims { sub: user.to_string(), iat, exp: iat + self.good_for_s };
        Ok(jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &self.encoding)?)
    }

    /// The user a token was issued to; none when it is not ours or no longer good.
    pub fn user(&self, token: &str) -> Option<i64> {
        let claims = jsonwebtoken::decode::<Claims>(token, &self.decoding, &self.validation).ok()?.claims;
        (self.now_s() < claims.exp).then(|| claims.sub.parse().ok())?
    }

    fn now_s(&self) -> u64 {
        self.clock.wall_ns() / 1_000_000_000
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_token_names_its_user_until_it_expires() {
        for minutes in [30, 150] {
            let (clock, hand) = Clock::manual();
            let tokens = Tokens::new("key", clock, minutes);
            let token = tokens.issue(42).unwrap();
            assert_eq!(tokens.user(&token), Some(42));
            hand.advance(Duration::from_secs(u64::from(minutes) * 60 - 1));
            assert_eq!(tokens.user(&token), Some(42), "{minutes}");
            hand.advance(Duration::from_secs(1));
            assert_eq!(tokens.user(&token), None, "{minutes}");
        }
    }

    #[test]
    fn a_token_of_another_key_or_of_none_is_refused() {
        let (clock, _hand) = Clock::manual();
        let tokens = Tokens::new("key", clock.clone(), 30);
        let foreign = Tokens::new("other", clock, 30).issue(42).unwrap();
        let unsigned = "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.eyJzdWIiOiIxIiwiaWF0IjowLCJleHAiOjk5OTk5OTk5OTl9.";
        for token in [foreign.as_str(), unsigned, "", "a.b.c", "\u{7f}"] {
            assert_eq!(tokens.user(token), None, "{token:?}");
        }
    }
}
