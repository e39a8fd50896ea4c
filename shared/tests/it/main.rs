//! What the unit tests beside the code cannot see.

mod database;
mod docs;
