//! What the unit tests beside the code cannot see.

mod docs;
