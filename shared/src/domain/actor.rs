//! The actor of an audit row.

use serde::Serialize;
use strum::{EnumString, IntoStaticStr};

use crate::domain::eligibility::POLICY_VERSION;
use crate::domain::ids::CustomerId;

/// The kind of actor, as stored in `return_events.actor_type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, EnumString, IntoStaticStr)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum ActorType {
    Customer,
    Admin,
    /// The policy that approves or rejects without a person.
    Policy,
    /// One of our programs.
    System,
}

impl ActorType {
    /// The name, as in the column.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// The person or program that made a change.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Actor {
    pub kind: ActorType,
    /// At most 64 ASCII characters: a user id, a policy version, a program.
    pub id: String,
}

impl Actor {
    pub fn customer(id: CustomerId) -> Self {
        Self {
            kind: ActorType::Customer,
            id: id.to_string(),
        }
    }

    /// The automatic policy, under its version.
    pub fn policy() -> Self {
        Self {
            kind: ActorType::Policy,
            id: POLICY_VERSION.to_owned(),
        }
    }

    pub fn system(program: &str) -> Self {
        Self {
            kind: ActorType::System,
            id: program.to_owned(),
        }
    }
}
