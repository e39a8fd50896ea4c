use super::*;

const CANARY: &str = "canary/of+16 bytes?";

fn find(secrets: &Secrets, text: &str) -> Option<String> {
    let found = secrets.find(text, Audience::Anyone)?;
    Some(found.to_string())
}

#[test]
fn p13_a_secret_is_found_in_every_form_that_gets_into_a_log() {
    let secrets = Secrets::one("it", CANARY);
    let bytes = CANARY.as_bytes();
    let base64 = |around: &str| BASE64_STANDARD.encode(around);
    for text in [
        format!("token={CANARY}."),
        format!("the beginning alone: {}…", &CANARY[..WINDOW]),
        base64(CANARY),
        base64(&format!("1{CANARY}1")),
        base64(&format!("12{CANARY}12")),
        BASE64_URL.encode(format!("12{CANARY}")),
        format!("{bytes:?}"),
        "a canary%2Fof%2B16%20bytes%3F".to_owned(),
        bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
    ] {
        assert_eq!(find(&secrets, &text), Some("it".to_owned()), "{text}");
    }
    for text in ["", "canary", "canary/of-16 bytes?", &CANARY[..WINDOW - 1]] {
        assert_eq!(find(&secrets, text), None, "{text}");
    }
}

#[test]
fn p13_personal_data_is_for_its_owner() {
    let secrets = Secrets::personal("a reason", CANARY);
    assert!(secrets.find(CANARY, Audience::Anyone).is_some());
    assert!(secrets.find(CANARY, Audience::Owner).is_none());
    let secrets = Secrets::one("a key", CANARY);
    assert!(secrets.find(CANARY, Audience::Owner).is_some());
}

#[test]
fn p13_the_secrets_of_a_program_are_in_its_variables_and_files() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str, text: String| {
        let path = folder.path().join(name);
        fs::write(&path, text).expect("write");
        path.to_string_lossy().into_owned()
    };
    let key = "the last 32 bytes of the DER, it";
    let der = [&[0x30; 16], key.as_bytes()].concat();
    let pem = format!(
        "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n",
        BASE64_STANDARD.encode(der)
    );
    let k = BASE64_URL.encode("a secret shared with the shop");
    let env = HashMap::from(
        [
            (
                "DATABASE_URL",
                "mysql://me:pass%2Fword%20of%20mine@host/db".to_owned(),
            ),
            ("GATEWAY_TOKEN", "the gateway's token".to_owned()),
            ("JWT_PRIVATE_KEY_FILE", file("jwt.pem", pem.clone())),
            (
                "AUTH_KEYS_FILE",
                file("keys.json", format!(r#"{{"keys":[{{"k":"{k}"}}]}}"#)),
            ),
            ("BISCUIT_PRIVATE_KEY_FILE", "/nowhere".to_owned()),
            ("TOPIC_RETURNS", "no secret, however long it is".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value)),
    );
    let secrets = Secrets::of(&env);
    for (text, name) in [
        ("pass/word of mine", "the password of DATABASE_URL"),
        (&*env["DATABASE_URL"], "the password of DATABASE_URL"),
        ("the gateway's token", "GATEWAY_TOKEN"),
        (&*pem, "JWT_PRIVATE_KEY_FILE"),
        (&*k, "a secret of AUTH_KEYS_FILE"),
    ] {
        assert_eq!(find(&secrets, text).as_deref(), Some(name), "{text}");
    }
    for text in ["mysql://me:***@host/db", &env["TOPIC_RETURNS"]] {
        assert_eq!(find(&secrets, text), None, "{text}");
    }
}
