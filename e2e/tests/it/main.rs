//! The built programs together, on real servers that stay up.

mod api_crash;
mod consumer_crash;
mod path;
mod redrive;
mod relay_crash;
mod shutdown;
mod start;
