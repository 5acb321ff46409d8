/*
 * Reads RUN_CONF.
 */
#include "run/init/init.h"

static const char path[] = "/" RUN_CONF;

static void refuse(const char *what, const char *why)
{
	say_error(RUN_ERROR_CONF, what, ": ", why, NULL);
	power_off();
}

/* Its bytes and a NUL behind them. */
static char *load(size_t *size)
{
	int fd = sys_open(path, O_RDONLY);
	char *bytes = NULL;
	struct stat st;
	long n = fd;

	if (fd >= 0)
		n = SYS(fstat, fd, &st, 0, 0, 0);
	if (n >= 0) {
		*size = (size_t)st.st_size;
		bytes = take_memory(*size + 1);
		n = bytes ? sys_read(fd, bytes, *size) : -ENOMEM;
	}
	if (n < 0)
		refuse(path, error_text((int)-n));
	sys_close(fd);
	return bytes;
}

static unsigned int number(const char *s)
{
	long n = number_of(s, NULL);

	if (n < 0 || n > 0xffffffffL)
		refuse(s, "not a number; give one from 0 to 4294967295");
	return (unsigned int)n;
}

static bool has_env(const struct conf *conf, const char *name)
{
	for (unsigned int i = 0; i < conf->envc; i++)
		if (after(conf->envp[i], name))
			return true;
	return false;
}

static void take(struct conf *conf, char *s)
{
	const char *v;

	if ((v = after(s, "arg=")))
		conf->argv[conf->argc++] = (char *)v;
	else if ((v = after(s, "env=")))
		conf->envp[conf->envc++] = (char *)v;
	else if ((v = after(s, "root=")))
		conf->root = v;
	else if ((v = after(s, "rootmode=")))
		conf->rootmode = v;
	else if ((v = after(s, "cwd=")))
		conf->cwd = v;
	else if ((v = after(s, "hostname=")))
		conf->hostname = v;
	else if ((v = after(s, "net=")))
		conf->net = v;
	else if ((v = after(s, "uid=")))
		conf->uid = number(v);
	else if ((v = after(s, "gid=")))
		conf->gid = number(v);
	else if ((v = after(s, "group=")) && conf->group_count < ARRAY_SIZE(conf->groups))
		conf->groups[conf->group_count++] = number(v);
	else if ((v = after(s, "tty=")))
		conf->tty = same(v, "1");
	else if ((v = after(s, "rows=")))
		conf->rows = (unsigned short)number(v);
	else if ((v = after(s, "cols=")))
		conf->cols = (unsigned short)number(v);
}

void conf_read(struct conf *conf)
{
	size_t size = 0, count = 0;
	char *bytes = load(&size);

	for (size_t i = 0; i < size; i++)
		count += !bytes[i];
	/* the last may lack its NUL; two for defaults of the environment, one for NULL */
	count += 4;
	conf->strings = take_memory(3 * count * sizeof(char *));
	if (!conf->strings)
		refuse(path, error_text(ENOMEM));
	conf->argv = conf->strings + count;
	conf->envp = conf->argv + count;
	conf->rootmode = "ro";
	conf->cwd = "/";
	count = 0;
	for (size_t i = 0; i < size; i += length(bytes + i) + 1) {
		conf->strings[count++] = bytes + i;
		take(conf, bytes + i);
	}
	if (!has_env(conf, "PATH="))
		conf->envp[conf->envc++] =
			"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
	if (!has_env(conf, "HOME="))
		conf->envp[conf->envc++] = conf->uid ? "HOME=/" : "HOME=/root";
	if (!conf->root)
		refuse(path, "no root= in it");
	sys_unlink(path);
}

const char *conf_next(const struct conf *conf, const char *key, char ***at)
{
	const char *value;

	for (*at = *at ? *at + 1 : conf->strings; **at; ++*at) {
		value = after(**at, key);
		if (value)
			return value;
	}
	return NULL;
}
