/*
 * resolver ADDRESS: listens on port 53 of this address, and says that every name is this address. One question a
 * datagram; of anything but an address (type A) there is none.
 */
#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#define HEADER 12

int main(int argc, char **argv)
{
	struct sockaddr_in here = { .sin_family = AF_INET, .sin_port = htons(53) }, from;
	int sock = socket(AF_INET, SOCK_DGRAM, 0);
	unsigned char message[600];

	if (argc != 2 || inet_pton(AF_INET, argv[1], &here.sin_addr) != 1 ||
	    bind(sock, (struct sockaddr *)&here, sizeof(here))) {
		perror("resolver ADDRESS");
		return 1;
	}
	for (;;) {
		socklen_t size = sizeof(from);
		ssize_t end = HEADER, n = recvfrom(sock, message, 512, 0, (struct sockaddr *)&from, &size);
		/* the question's name, by its place; type, class, a minute, four bytes */
		unsigned char answer[] = { 0xc0, HEADER, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 0, 0, 0, 0 };
		int is_address;

		while (end < n && message[end])
			end += message[end] + 1;
		end += 5;
		if (end > n)
			continue;
		is_address = message[end - 3] == 1;
		memcpy(message + 2, "\x81\x80\0\1\0\0\0\0\0\0", 10);
		message[7] = (unsigned char)is_address;
		memcpy(answer + 12, &here.sin_addr, 4);
		memcpy(message + end, answer, sizeof(answer));
		sendto(sock, message, end + (is_address ? sizeof(answer) : 0), 0, (struct sockaddr *)&from, size);
	}
}
