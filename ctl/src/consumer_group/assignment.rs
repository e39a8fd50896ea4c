//! The partitions of a group's member, from the bytes in which the consumer protocol describes them: a version, then
//! each topic with its partitions (`ConsumerProtocolAssignment` in Kafka's source).

/// The member's partitions of a topic, ascending; none if the bytes cannot be read.
pub(super) fn partitions(bytes: &[u8], topic: &str) -> Vec<i32> {
    let mut found = read(bytes, topic).unwrap_or_default();
    found.sort_unstable();
    found
}

fn read(mut bytes: &[u8], wanted: &str) -> Option<Vec<i32>> {
    let rest = &mut bytes;
    let _version = take(rest, 2)?;
    let mut found = Vec::new();
    for _ in 0..int(rest)? {
        let length = i16::from_be_bytes(take(rest, 2)?.try_into().ok()?);
        let topic = take(rest, usize::try_from(length).ok()?)?;
        for _ in 0..int(rest)? {
            let partition = int(rest)?;
            if topic == wanted.as_bytes() {
                found.push(partition);
            }
        }
    }
    Some(found)
}

fn int(rest: &mut &[u8]) -> Option<i32> {
    Some(i32::from_be_bytes(take(rest, 4)?.try_into().ok()?))
}

fn take<'b>(rest: &mut &'b [u8], count: usize) -> Option<&'b [u8]> {
    let (taken, after) = rest.split_at_checked(count)?;
    *rest = after;
    Some(taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_of_one_topic_are_read_and_broken_bytes_are_none() {
        let mut bytes = vec![0, 1, 0, 0, 0, 2];
        for (topic, partitions) in [("other", &[7][..]), ("ours", &[3, 1])] {
            bytes.extend([0, u8::try_from(topic.len()).expect("short")]);
            bytes.extend(topic.as_bytes());
            bytes.extend([0, 0, 0, u8::try_from(partitions.len()).expect("few")]);
            bytes.extend(partitions.iter().flat_map(|p: &i32| p.to_be_bytes()));
        }
        assert_eq!(partitions(&bytes, "ours"), [1, 3]);
        assert_eq!(partitions(&bytes, "none"), [0; 0]);
        for end in 0..bytes.len() {
            assert_eq!(partitions(&bytes[..end], "ours"), [0; 0], "{end}");
        }
    }
}
