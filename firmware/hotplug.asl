/*
 * SSDT: the slots of bus 0 as hot-plug slots (ACPI 6.4, 6.3 and 5.6.6), for machines with a control
 * socket. Run through the C preprocessor. The registers are pci/hotplug.c's.
 */
DefinitionBlock ("", "SSDT", 2, "VMM   ", "VMMSLOTS", 1)
{
	External (\_SB.PCI0, DeviceObj)

	Scope (\_SB.PCI0)
	{
		/* Which slots have a new function, which one is to be let go (reading takes either), which
		   are occupied (writing ejects). */
		OperationRegion (SLTR, SystemIO, 0x0610, 16)
		Field (SLTR, DWordAcc, NoLock, WriteAsZeros)
		{
			SADD, 32,
			SREM, 32,
			SOCC, 32
		}

		Method (SSTA, 1, Serialized)
		{
			If (SOCC & (1 << Arg0))
			{
				Return (0x0f)
			}
			Return (0)
		}

		Method (SEJT, 1, Serialized)
		{
			SOCC = 1 << Arg0
		}

#define SLOT(n)                                       \
	Device (S##n)                                 \
	{                                             \
		Name (_ADR, 0x##n##0000)              \
		Name (_SUN, 0x##n)                    \
		Method (_STA, 0, NotSerialized)       \
		{                                     \
			Return (SSTA (0x##n))         \
		}                                     \
		Method (_EJ0, 1, NotSerialized)       \
		{                                     \
			SEJT (0x##n)                  \
		}                                     \
	}

#define EVERY_SLOT(_)                                                                              \
	_(01) _(02) _(03) _(04) _(05) _(06) _(07) _(08) _(09) _(0A) _(0B) _(0C) _(0D) _(0E) _(0F)  \
	_(10) _(11) _(12) _(13) _(14) _(15) _(16) _(17) _(18) _(19) _(1A) _(1B) _(1C) _(1D) _(1E)  \
	_(1F)

		EVERY_SLOT (SLOT)

#define TELL(n)                            \
	If (Arg0 & (1 << 0x##n))           \
	{                                  \
		Notify (S##n, Arg1)        \
	}

		Method (STEL, 2, Serialized)
		{
			EVERY_SLOT (TELL)
		}

		/* 5.6.6: 0 is a bus check, 1 a device check, 3 an eject request. Bit 0, the bridge's own, says
		   that a function has gone: Linux looks for what is missing on a bus check of the bridge
		   alone. */
		Method (PCNT, 0, Serialized)
		{
			Local0 = SADD
			If (Local0 & 1)
			{
				Notify (\_SB.PCI0, 0)
			}
			STEL (Local0, 1)
			STEL (SREM, 3)
		}
	}
}
