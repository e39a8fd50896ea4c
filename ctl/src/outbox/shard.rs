//! A shard on the command line.

use shared::domain::ids::Shard;

pub(super) fn parse_shard(text: &str) -> Result<Shard, String> {
    let number: Option<u8> = text.parse().ok();
    number
        .and_then(|number| Shard::all().find(|shard| shard.0 == number))
        .ok_or_else(|| format!("must be a shard, 0 to {}", Shard::COUNT - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shard_is_one_of_the_sixteen() {
        assert_eq!(parse_shard("15"), Ok(Shard(15)));
        for text in ["16", "-1", "", "x", "256"] {
            assert_eq!(
                parse_shard(text),
                Err("must be a shard, 0 to 15".to_owned()),
                "{text}"
            );
        }
    }
}
