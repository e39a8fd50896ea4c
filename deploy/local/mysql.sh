# shellcheck shell=bash
# Sourced by `stack`: MySQL for one instance, in "$instance_dir/mysql".
# mysqld comes from PATH if it is new enough, else from Debian's packages unpacked under STACK_DIR.

MYSQL_MINIMUM=8.4
MYSQL_DATABASE=returns
# The server and the client without their "metapackage" parts, which would want a system-wide installation.
MYSQL_PACKAGES=(mysql-server-core mysql-client-core)
# No Debian release carries MySQL itself; the unstable suite does, on the same mirror.
MYSQL_SUITE=sid

mysql_paths() {
    mysql_dir=$instance_dir/mysql
    mysql_log=$mysql_dir/mysqld.log mysql_pid_file=$mysql_dir/pid
    mysql_needle=--datadir=$mysql_dir/data
    mysql_home=$STACK_DIR/mysql-debian
}

mysql_url() { echo "mysql://root@127.0.0.1:$(read_file "$mysql_dir/port")/$MYSQL_DATABASE?ssl-mode=DISABLED"; }
mysql_running() { running_pid "$mysql_pid_file" "$mysql_needle"; }

mysql_how_to_get_it() {
    die mysql "$1
       One of these is needed:
         - DATABASE_URL=mysql://USER:PASSWORD@HOST:PORT/DATABASE?ssl-mode=MODE of a MySQL server >= $MYSQL_MINIMUM, or
         - mysqld and mysql >= $MYSQL_MINIMUM on PATH, or
         - a Debian machine or container (apt-get, dpkg-deb, debian-archive-keyring) that reaches its mirror."
}

# Is the mysqld on PATH usable? MariaDB also installs a `mysqld`, with a higher number and another SQL.
mysql_on_path() {
    local text version
    command -v mysqld >/dev/null && command -v mysql >/dev/null || return 1
    text=$(mysqld --no-defaults --version 2>/dev/null) || return 1
    version=$(grep -oE 'Ver [0-9]+(\.[0-9]+)+' <<<"$text" | cut -d ' ' -f 2) || return 1
    if [[ $text == *MariaDB* ]] || ! printf '%s\n' "$MYSQL_MINIMUM" "$version" | sort -VC; then
        say mysql "the mysqld on PATH is not MySQL >= $MYSQL_MINIMUM ($version): using Debian's packages"
        return 1
    fi
}

# Set the command arrays mysqld=() and mysql=(), downloading the packages if need be.
mysql_software() {
    if mysql_on_path; then
        mysqld=("$(command -v mysqld)" --no-defaults) mysql=(mysql --no-defaults)
        return 0
    fi
    if [[ ! -d $mysql_home ]]; then
        download_lock "$STACK_DIR/mysql-debian.lock"
        [[ -d $mysql_home ]] || mysql_download
        download_unlock
    fi
    # The packages belong to a newer Debian than this machine: they bring their own C library and its loader.
    local loader libraries
    loader=$(compgen -G "$mysql_home/usr/lib*/ld-linux*.so.*" | head -n 1)
    libraries=$(compgen -G "$mysql_home/usr/lib/*-linux-gnu*" | head -n 1)
    mysql=("$loader" --library-path "$libraries" "$mysql_home/usr/bin/mysql" --no-defaults)
    mysqld=("$loader" --library-path "$libraries" "$mysql_home/usr/sbin/mysqld" --no-defaults
        "--basedir=$mysql_home/usr" "--lc-messages-dir=$mysql_home/usr/share/mysql"
        "--plugin-dir=$mysql_home/usr/lib/mysql/plugin"
        "--character-sets-dir=$mysql_home/usr/share/mysql/charsets")
}

# Everything happens in a scratch folder that is renamed at the end: an interrupted download is never used.
mysql_download() {
    local command scratch start packages size
    for command in apt-get apt-cache dpkg-deb; do
        command -v "$command" >/dev/null || mysql_how_to_get_it "no MySQL here, and no $command to get one with."
    done
    # Remove what an interrupted download left. We have the lock, so no other process uses it.
    rm -rf "$STACK_DIR"/mysql-debian.??????
    start=$(now_ds)
    scratch=$(mktemp -d "$STACK_DIR/mysql-debian.XXXXXX")
    say mysql "downloading MySQL from this machine's Debian mirror (about 60 packages, 66 MB)"
    if ! mysql_apt_fetch "$scratch"; then
        tail -n 20 "$scratch/log" >&2
        rm -rf "$scratch"
        mysql_how_to_get_it "Debian's packages could not be downloaded (apt's messages are above)."
    fi
    packages=("$scratch"/cache/archives/*.deb) size=$(megabytes "${packages[@]}")
    say mysql "downloaded ${#packages[@]} packages ($size MB) in $(elapsed "$start")"
    start=$(now_ds)
    # shellcheck disable=SC2016
    printf "%s\0" "${packages[@]}" | xargs -0 -n 1 -P 4 sh -c 'exec dpkg-deb -x "$1" "$0"' "$scratch/root"
    say mysql "unpacked $(megabytes "$scratch/root") MB in $(elapsed "$start")"
    mv "$scratch/root" "$mysql_home"
    rm -rf "$scratch"
}

# apt with folders of its own and an empty list of installed packages: it needs no root, touches nothing of the
# system, and downloads every dependency down to the C library. apt's own proxy and login settings stay in force.
mysql_apt_fetch() {
    local scratch=$1 mirror keyring=/usr/share/keyrings/debian-archive-keyring.gpg
    mkdir -p "$scratch"/{state/lists/partial,cache/archives/partial,root}
    : >"$scratch/status"
    # The update hooks of the system's configuration belong to the system's own lists.
    cat >"$scratch/apt.conf" <<CONF
Dir::State "$scratch/state"; Dir::State::status "$scratch/status";
Dir::State::Lists "$scratch/state/lists"; Dir::Cache "$scratch/cache";
Dir::Etc::sourcelist "$scratch/sources.list"; Dir::Etc::sourceparts "-";
Dir::Etc::preferences "/dev/null"; Dir::Etc::preferencesparts "-";
APT::Sandbox::User "root"; APT::Install-Recommends "false"; Acquire::Languages "none"; Acquire::Retries "3";
#clear APT::Update::Pre-Invoke; #clear APT::Update::Post-Invoke; #clear APT::Update::Post-Invoke-Success;
#clear DPkg::Pre-Install-Pkgs; #clear DPkg::Post-Invoke;
CONF
    [[ -r $keyring ]] || { echo "missing $keyring (package debian-archive-keyring)" >"$scratch/log"; return 1; }
    mysql_mirrors "$scratch" >"$scratch/mirrors"
    while read -r mirror; do
        echo "deb [signed-by=$keyring target=Packages] $mirror $MYSQL_SUITE main" >"$scratch/sources.list"
        if apt-get -c "$scratch/apt.conf" -qq --error-on=any update >>"$scratch/log" 2>&1; then
            apt-get -c "$scratch/apt.conf" -qq -y --download-only install "${MYSQL_PACKAGES[@]}" >>"$scratch/log" 2>&1
            return "$?"
        fi
    done <"$scratch/mirrors"
    echo "no Debian mirror with suite $MYSQL_SUITE in this machine's apt sources" >>"$scratch/log"
    return 1
}

# The archives this machine's apt is set up to use, Debian's own first. apt reads its two source formats for us.
# A wrong archive does no harm: its suite must be signed by Debian's keys.
mysql_mirrors() {
    {
        # Known only if the machine has run `apt-get update`.
        # shellcheck disable=SC2016
        apt-get indextargets --format '$(LABEL)|$(REPO_URI)' 'Created-By: Packages' | sed -n 's/^Debian|//p'
        apt-get -o "Dir::State::Lists=$1/state/lists" -o Debug::NoLocking=1 update --print-uris |
            sed -nE "s#^'(.*)/dists/[^/']*/InRelease'.*#\1/#p" | grep -v -- '-security/$'
    } 2>>"$1/log" | awk '!seen[$0]++'
}
