#!/usr/bin/env bash
# The rules of this workspace that neither the compiler nor clippy can state. Each failed rule prints one line:
# where, what, why. Exit 0: all hold. 1: at least one is broken. 2: cargo could not read the workspace.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

crates=(api relay refund-consumer shared ctl e2e bench)
# What is deployed. e2e and bench only drive these, as built programs.
product=(api relay refund-consumer shared ctl)
failures=0

# broken RULE WHY: one line for each line of standard input ("where: what").
broken() {
    local line
    while IFS= read -r line; do
        printf 'layout: [%s] %s (%s)\n' "$1" "$line" "$2"
        failures=$((failures + 1))
    done
}

# rust_files FOLDER...: every Rust file below the folders that exist.
rust_files() {
    local folder
    for folder in "$@"; do
        if [[ -d $folder ]]; then find "$folder" -name target -prune -o -name '*.rs' -print; fi
    done
}

# Rule 1. Status, audit row and outbox row are written together, in one place; a second writer would break P2, P4, P7.
# A redrive only moves rows that were written there back from outbox_parked.
# Perl, because a statement runs over lines, back-quoted names, string continuations and hint comments.
status_writers() {
    local files
    mapfile -t files < <(rust_files "${product[@]/%//src}" | grep -vxE 'shared/src/domain/(transition(/open)?|outbox|audit)\.rs|ctl/src/store/parked\.rs')
    ((${#files[@]})) || return 0
    perl -0777 -ne '
        # Comments go, line breaks stay, so that line numbers hold.
        s{^[ \t]*//[^\n]*}{}mg;
        s{(/\*[^;"]{0,300}?\*/)}{ (my $c = $1) =~ tr/\n//cd; " $c" }ge;
        my $gap = qr/(?:\\[nrt]|[\s\\",])+/;
        my $schema = qr/(?:`?\w+`?\s*\.\s*)?/;
        my $insert = qr/\b(?:insert|replace)$gap(?:(?:low_priority|high_priority|delayed|ignore)$gap)*
                        into$gap$schema`?(?:return_events|outbox)`?(?!\w)/xi;
        # An assignment to status before any WHERE, in a statement whose tables include `returns`.
        my $update = qr/\bupdate$gap[\w\s`.,=()\\]*?(?<![\w.])$schema`?returns`?(?!\w)[\w\s`.,=()\\]*?\bset\b
                        (?:(?!\bwhere\b)[^;]){0,1500}?(?<!\w)`?status`?\s*=(?!=)/xi;
        while (/($insert|$update)/g) {
            my $line = 1 + (substr($_, 0, $-[0]) =~ tr/\n//);
            (my $text = substr($1, 0, 60)) =~ s/\s+/ /g;
            print "$ARGV:$line: $text ...\n";
        }' "${files[@]}"
}

# uses CRATE ALLOWED: lines that name the crate outside the allowed paths (a regular expression).
uses() {
    rust_files "${crates[@]}" | { grep -vE "^($2)" || true; } |
        xargs -r grep -nE "^[[:space:]]*(pub(\([^)]*\))?[[:space:]]+)?(use|extern crate)[[:space:]]+(::)?$1\b|^[[:space:]]*([^/[:space:]]|/[^/]).*\b$1::|^$1::" /dev/null || true
}

# names ARGUMENT...: the package names `cargo tree` lists. Its own failure ends the check: silence is not success.
names() {
    local tree
    if ! tree=$(cargo tree --locked --prefix none --format '{p}' "$@"); then
        echo "layout: cargo tree $* failed; its message is above" >&2
        exit 2
    fi
    cut -d ' ' -f 1 <<<"$tree" | sort -u
}

scratch=$(mktemp)
trap 'rm -f "$scratch"' EXIT

status_writers >"$scratch"
broken one-writer "only shared/src/domain/transition.rs (with transition/), outbox.rs and audit.rs change a return, so that status, audit and outbox agree" <"$scratch"

uses warp 'api/|shared/src/runtime/ops(\.rs|/)' >"$scratch"
broken warp-stays "warp belongs to api and shared::runtime::ops; others must not grow a second HTTP surface" <"$scratch"

uses rdkafka 'shared/src/(runtime/kafka(\.rs|/)|test_support/topics\.rs)|relay/|refund-consumer/|ctl/|e2e/|bench/' >"$scratch"
broken kafka-stays "the Kafka client hides behind shared::runtime::kafka (in tests: test_support::topics); the api must work without Kafka" <"$scratch"

for crate in "${crates[@]}"; do
    # Direct dependencies of every kind. Each crate may use `shared`, and shared may use none of them; bench drives the
    # programs with what e2e drives them.
    direct=$(names -p "$crate" --depth 1 -e normal,build,dev) || exit 2
    for other in "${crates[@]}"; do
        if [[ $other == "$crate" || $other == shared || $crate/$other == bench/e2e ]]; then continue; fi
        if grep -qx -- "$other" <<<"$direct"; then
            broken edges "programs meet only in MySQL rows and Kafka messages" <<<"$crate/Cargo.toml: $crate depends on $other"
        fi
    done
    case $crate in
        api | shared) ;;
        *) if grep -qx warp <<<"$direct"; then
            broken warp-stays "warp belongs to api and shared::runtime::ops" <<<"$crate/Cargo.toml: $crate depends on warp"
        fi ;;
    esac
done

api_tree=$(names -p api -e normal,build,dev) || exit 2
if grep -qx rdkafka <<<"$api_tree"; then
    broken api-without-kafka "a return is accepted while Kafka is down; see: cargo tree -p api -i rdkafka" <<<"api/Cargo.toml: rdkafka is in its tree"
fi

for crate in api relay refund-consumer ctl; do
    release_tree=$(names -p "$crate" -e normal) || exit 2
    if grep -qx fail <<<"$release_tree"; then
        broken no-failpoints "a kill point must not exist in a release build; see: cargo tree -p $crate -e normal -i fail" <<<"$crate/Cargo.toml: the default features bring in crate fail"
    fi
done

# jsonwebtoken with two crypto providers panics at the first token, and a second implementation is a second thing to patch.
workspace_tree=$(names --workspace -e normal,build) || exit 2
for provider in ring aws-lc-rs aws-lc-sys boring; do
    if grep -qx -- "$provider" <<<"$workspace_tree"; then
        broken one-crypto-provider "signatures are checked by RustCrypto, TLS is OpenSSL's; see: cargo tree --workspace -i $provider" <<<"Cargo.lock: $provider is in the tree"
    fi
done

if ((failures)); then
    echo "layout: $failures broken" >&2
    exit 1
fi
echo "layout: all rules hold"
