fn main() {
    // `sqlx::migrate!` embeds the folder; without this line a new file would not trigger a rebuild.
    println!("cargo:rerun-if-changed=../migrations");
}
