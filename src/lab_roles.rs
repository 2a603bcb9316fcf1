//! The roles of the lab itself: what loads, what breaks links, what takes a machine's resources.

use crate::{hog, load, proxy};

/// One row each; `scalelab serve lab NAME` runs it.
pub const ROLES: &[kit::Role] = &[load::ROLES[0], proxy::ROLE, hog::ROLE];
