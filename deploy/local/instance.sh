# shellcheck shell=bash
# Sourced by `stack`: one instance's folder, its locks, its env file, and its two servers together.

# Descriptor 9: one stack command at a time per instance. Descriptor 8: shared by every `stack run` of it.
select_instance() {
    instance=${1:-dev}
    if [[ ! $instance =~ ^[a-z0-9][a-z0-9-]{0,30}$ || $instance =~ ^(keys|env|mysql-.*|kafka-.*)$ ]]; then
        say stack "error: '$instance' is not an instance name (small letters, digits, '-'; not keys, env, mysql-*, kafka-*)"
        exit 2
    fi
    mkdir -p "$STACK_DIR"
    STACK_DIR=$(cd "$STACK_DIR" && pwd)
    instance_dir=$STACK_DIR/$instance
    mkdir -p "$instance_dir"
    env_file=$instance_dir/env
    [[ $instance != dev ]] || env_file=$STACK_DIR/env
    mysql_paths
    kafka_paths
}

lock_instance() {
    command -v flock >/dev/null || die stack "flock is missing (Debian: util-linux)"
    exec 9>"$instance_dir/lock"
    flock -w 1 9 && return 0
    say stack "waiting for another stack command on instance $instance"
    flock -w 300 9 || die stack "another stack command has held instance $instance for 5 minutes"
}
unlock_instance() { exec 9>&-; }

# An address in the environment is used unless it is this instance's own, as it is inside `stack run` or after `source env`.
find_external() {
    rm -f "$instance_dir"/{mysql,kafka}.external
    if [[ -n ${DATABASE_URL:-} && $DATABASE_URL != "$(mysql_url)" ]]; then write_private mysql.external "$DATABASE_URL"; fi
    if [[ -n ${KAFKA_BROKERS:-} && $KAFKA_BROKERS != "$(kafka_brokers)" ]]; then write_private kafka.external "$KAFKA_BROKERS"; fi
}

# write_private FILE TEXT: a new file that nobody else can ever read, because the text may contain a password.
write_private() (
    umask 077
    echo "$2" >"$instance_dir/$1"
)

write_env() {
    local url brokers
    url=$(read_file "$instance_dir/mysql.external") brokers=$(read_file "$instance_dir/kafka.external")
    (
        umask 077
        cat >"$env_file.new" <<ENV
DATABASE_URL=${url:-$(mysql_url)}
KAFKA_BROKERS=${brokers:-$(kafka_brokers)}
JWT_PRIVATE_KEY_FILE=$STACK_DIR/keys/jwt.pem
BISCUIT_PRIVATE_KEY_FILE=$STACK_DIR/keys/biscuit.pem
AUTH_KEYS_FILE=$STACK_DIR/keys/keys.json
STACK_INSTANCE=$instance
STACK_DIR=$STACK_DIR
ENV
    )
    mv "$env_file.new" "$env_file"
}

# The two servers start in parallel. Each job has its own process group (set -m), so that an interrupted start also ends its
# downloads; the servers are in another session.
start_jobs=()
start_servers() {
    local start job
    start=$(now_ds)
    find_external
    set -m
    if [[ -e $instance_dir/mysql.external ]]; then say mysql "using DATABASE_URL from the environment"; else
        (set +m; mysql_up) </dev/null &
        start_jobs+=($!)
    fi
    if [[ -e $instance_dir/kafka.external ]]; then say kafka "using KAFKA_BROKERS from the environment"; else
        (set +m; kafka_up) </dev/null &
        start_jobs+=($!)
    fi
    set +m
    # After the first failure the other server is not needed, and its messages would hide the reason.
    while ((${#start_jobs[@]})); do
        for job in "${!start_jobs[@]}"; do
            if kill -0 "${start_jobs[job]}" 2>/dev/null; then continue; fi
            wait "${start_jobs[job]}" || exit 1
            unset "start_jobs[job]"
        done
        sleep 0.05
    done
    write_env
    say stack "instance $instance is up after $(elapsed "$start"): $env_file"
}

# These jobs write to scratch folders that are renamed when complete, so killing them is safe.
cancel_start() {
    local job
    for job in ${start_jobs[@]+"${start_jobs[@]}"}; do
        # Without disown, bash reports each killed job.
        disown "$job" 2>/dev/null || true
        kill -KILL -- "-$job" 2>/dev/null || true
    done
    start_jobs=()
}

stop_servers() {
    local kafka_job=''
    if [[ -e $kafka_pid_file ]]; then
        kafka_stop &
        kafka_job=$!
    fi
    if [[ -e $mysql_pid_file ]]; then mysql_stop; fi
    if [[ -n $kafka_job ]]; then wait "$kafka_job"; fi
    mysql_forget_socket
    rm -f "$instance_dir/kept" "$env_file"
    say stack "instance $instance is down"
}

delete_data() { rm -rf "$mysql_dir" "$kafka_dir" "$instance_dir"/*.external "$env_file"; }
