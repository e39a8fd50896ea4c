//! The built programs together, on real servers that stay up.

mod api_crash;
mod chaos;
mod consumer_crash;
mod logs;
mod mysql_address;
mod mysql_away;
mod path;
mod queries;
mod redrive;
mod refunds;
mod relay_crash;
mod secrets;
mod shutdown;
mod start;
mod traces;
mod troubled_topic;
